"""The sections of the W&B workspace: how the numbers that runs log are plotted, as means over the seeds of a cell.

Methods have the colours of a report (`kravl.tracking.methods`).
"""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

from kravl.tracking.methods import known_methods, look

CELL = panels.Config("cell")
SEED_MEAN: dict[str, Any] = {"groupby": CELL, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
MAX_RUNS = 100  # runs per chart
COLUMNS = (
    "run:displayName", "config:method.value", "config:cell.value", "config:shots.value", "config:seed.value",
    "summary:test/accuracy", "summary:ood_mean", "summary:harmonic_mean", "summary:test/ece",
    "summary:trainable_parameters", "summary:effective_rank", "summary:train_seconds",
)  # fmt: skip


def workspace(entity: str, project: str, study: str | None, sets: Sequence[str]) -> workspaces.Workspace:
    """The unsaved workspace: finished runs of the ``study`` (None: of all), grouped by method and then by cell."""
    finished = [workspaces.Metric("State") == "finished"]
    chosen = [workspaces.Metric("Group") == study] if study else []
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"kravl: {study}" if study else "kravl: comparison of methods",
        sections=[
            workspaces.Section(name=name, panels=_arranged(charts), is_open=True)
            for name, charts in _sections(sets).items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="trainer/global_step", max_runs=MAX_RUNS),
        runset_settings=workspaces.RunsetSettings(
            filters=workspaces.And(*finished, *chosen),
            groupby=[workspaces.Config("method"), workspaces.Config("cell")],
            group_colors={method: look(method).light for method in sorted(known_methods())},
            pinned_columns=list(COLUMNS),
        ),
    )


def _sections(sets: Sequence[str]) -> dict[str, list[Any]]:
    sections: dict[str, list[Any]] = {
        "In and out of distribution": [
            _scatter("Out of distribution against in distribution", "test/accuracy", "ood_mean"),
            _line("WiSE-FT, from the pretrained to the adapted weights", "wise_ft/test/accuracy", "wise_ft/ood_mean"),
            *(_bar(*each) for each in (("Test", "test/accuracy"), ("Mean of the other sets", "ood_mean"))),
            _bar("Harmonic mean of the two", "harmonic_mean"),
            _bar("Zero-shot, mean of the other sets", "zero_shot/ood_mean"),
        ],
        "Images per class": [
            _scatter("Test accuracy against images per class", panels.Config("shots"), "test/accuracy", log_x=True),
            _scatter("Other sets against images per class", panels.Config("shots"), "ood_mean", log_x=True),
        ],
        "Cost": [
            _scatter("Test accuracy against trainable parameters", "trainable_parameters", "test/accuracy", log_x=True),
            _scatter("Test accuracy against effective rank of the update", "effective_rank", "test/accuracy"),
            _bar("Training, s (median)", "train_seconds", groupby_aggfunc="median"),
            _bar("Peak memory, bytes", "peak_memory_bytes"),
        ],
        "Calibration": [
            _line("Reliability on the test set", "calibration/confidence", "calibration/accuracy"),
            _bar("Expected calibration error, test", "test/ece"),
        ],
        "Training": [
            _line("Training loss", "trainer/global_step", "train/loss"),
            _line("Training accuracy", "trainer/global_step", "train/accuracy"),
            _line("Effective rank of the update", "trainer/global_step", "delta/effective_rank"),
            _line("Norm of the update", "trainer/global_step", "delta/norm"),
        ],
        "Classes and pictures": [
            panels.WeavePanelSummaryTable(table_name="classes/test"),
            panels.WeavePanelSummaryTable(table_name="samples/test"),
        ],
    }
    if sets:
        sections["Each set"] = [_bar(name.replace("_", " "), f"{name}/accuracy") for name in sets]
    return sections


def _scatter(title: str, x: Any, y: str, log_x: bool = False) -> Any:
    horizontal = panels.SummaryMetric(x) if isinstance(x, str) else x
    return panels.ScatterPlot(title=title, x=horizontal, y=panels.SummaryMetric(y), log_x=log_x)


def _line(title: str, x: str, y: str) -> Any:
    return panels.LinePlot(title=title, x=x, y=[y], max_runs_to_show=MAX_RUNS, **SEED_MEAN)


def _bar(title: str, metric: str, **changes: Any) -> Any:
    return panels.BarPlot(title=title, metrics=[metric], max_runs_to_show=MAX_RUNS, **(SEED_MEAN | changes))


def _arranged(charts: Sequence[Any]) -> list[Any]:
    """Three per row of 24 columns."""
    for i, chart in enumerate(charts):
        chart.layout = panels.Layout(x=8 * (i % 3), y=6 * (i // 3), w=8, h=6)
    return list(charts)
