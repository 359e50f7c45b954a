"""What each tracker has of a run, read back by its own reader."""

import csv
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from wandb_records import history, logged

EXTERNAL = ("tensorboard", "mlflow", "trackio")


class Tracked(NamedTuple):
    """Settings by dotted name as text, the (step, value) of every metric, and the names of pictures and histograms."""

    settings: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]
    drawn: set[str]

    def steps(self, name: str) -> list[int]:
        return [step for step, _ in self.metrics[name]]

    def last(self, name: str) -> float:
        return self.metrics[name][-1][1]


def read(kind: str, folder: Path) -> Tracked:
    """What ``kind`` has of the run in ``folder``."""
    reader = {"csv": _csv, "wandb": _wandb, "tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio}[kind]
    return reader(folder)


def _rows(rows: Any, step: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != step and value != "" and isinstance(value, str | int | float) and row.get(step) is not None:
                found.setdefault(name, []).append((int(row[step]), float(value)))
    return found


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: str(tree)}
    return {name: text for key, value in tree.items() for name, text in _flat(value, f"{prefix}{key}.").items()}


def _csv(folder: Path) -> Tracked:
    [version] = folder.glob("csv/version_*")
    file, end = version / "metrics.csv", version / "summary.csv"
    rows = _rows(csv.DictReader(file.read_text().splitlines()), "step") if file.exists() else {}
    ends = dict(list(csv.reader(end.read_text().splitlines()))[1:]) if end.exists() else {}
    final = {name: [(0, float(value))] for name, value in ends.items()}
    return Tracked(_flat(yaml.safe_load((version / "hparams.yaml").read_text())), rows | final, set())


def _wandb(folder: Path) -> Tracked:
    every = logged(folder)
    rows = history(folder)
    plain = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in rows]
    summary = {k: [(0, v)] for k, v in every["summary"].items() if isinstance(v, int | float)}
    drawn = {name.rpartition("/")[0] for row in rows for name in row if name.endswith(("/values", "/nrows"))}
    return Tracked(_flat(every["config"]), summary | _rows(plain, "trainer/global_step"), drawn)


def _tensorboard(folder: Path) -> Tracked:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    settings = {name: str(getattr(v, v.WhichOneof("kind"))) for name, v in values.items()}
    scalars = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]}
    return Tracked(settings, scalars, {*tags["images"], *tags["histograms"]})


def _mlflow(folder: Path) -> Tracked:
    from mlflow import MlflowClient

    run = (folder / "mlflow_id").read_text().split()[-1]
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    data = client.get_run(run).data
    metrics = {name: [(m.step, m.value) for m in client.get_metric_history(run, name)] for name in data.metrics}
    return Tracked(data.params, metrics, {each.path for each in client.list_artifacts(run)})


def _trackio(folder: Path) -> Tracked:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    project, own = os.environ["TRACKIO_PROJECT"], (folder / "trackio_id").read_text()
    [run] = [run for run in trackio.Api().runs(project) if run.name.endswith(own)]
    rows = SQLiteStorage.get_logs(project, run.name, run_id=run.id)
    drawn = {name for row in rows for name, value in row.items() if isinstance(value, dict)}
    plain = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in rows]
    return Tracked(json.loads(json.dumps(_flat(run.config))), _rows(plain, "step"), drawn)
