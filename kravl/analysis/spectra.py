"""Figures and tables of the weight updates of finished runs."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kravl.report.figures.drawing import STYLE, draw_decay, mark_of, panel_grid, save
from kravl.report.page import publish
from kravl.report.tables import Cells
from kravl.training.spectrum_monitor import Trace

COLUMNS = 3  # panels side by side
DASHES = {"image": "-", "text": "--"}
MEANING = {
    "effective_rank": "effective rank of ΔW",
    "stable_rank": "stable rank of ΔW",
    "norm": "Frobenius norm of ΔW",
    "spectral_norm": "spectral norm of ΔW",
    "cosine": "cosine of ΔW to W",
    "overlap": "overlap of leading directions",
    "intruders": "intruder dimensions",
}
INTRODUCTION = (
    "ΔW is what a run added to a pretrained matrix W. Overlap is the mean squared cosine between the spaces of the "
    "first 16 singular vectors of ΔW and of W; an intruder dimension is one of the first 16 singular vectors of W + ΔW "
    "that has no cosine of 0.5 or more with any of W's (counted with exact=true).",
)
Traces = Mapping[str, Trace]
Styles = Mapping[str, dict[str, Any]]  # arguments for matplotlib by run


class SiteLocation(NamedTuple):
    """Where in a model an adapted matrix is; ``layer`` is None outside the transformer blocks."""

    tower: str  # image | text
    layer: int | None
    kind: str  # what follows the layer, such as attn.qkv


def locate(site: str) -> SiteLocation:
    """Such as image, 3, mlp.c_fc for ``visual.transformer.resblocks.3.mlp.c_fc``; a ViT is an image tower."""
    parts = re.split(r"\.(\d+)\.", f".{site}", maxsplit=1)
    text = parts[0].strip(".").split(".")[0] in ("transformer", "text", "text_projection", "token_embedding")
    tower = "text" if text else "image"
    return SiteLocation(tower, int(parts[1]), parts[2]) if len(parts) == 3 else SiteLocation(tower, None, site)


def report_spectra(traces: Traces, methods: Mapping[str, str], out: Path) -> None:
    """Write table.md, the figures and index.html to ``out``, and print the table.

    Args:
        traces: of the runs, by name.
        methods: of the same runs; each is drawn as its method.
    """
    styles = _styles(methods)
    captions = {"layers": "At the end, by layer: mean over the matrices of a layer; dashed: the text tower."}
    with matplotlib.rc_context(STYLE):
        save(_panels(traces, styles, _by_layer), out / "layers.png")
        if any(len(trace.steps) > 1 for trace in traces.values()):
            save(_panels(traces, styles, _by_step), out / "steps.png")
            captions["steps"] = "While training: mean over the matrices of a tower; dashed: the text tower."
    if decay := {name: line for name, trace in traces.items() if (line := mean_decay(trace.singular_values))}:
        draw_decay(decay, out / "decay", methods)
        captions["decay"] = "Singular values of ΔW at the end, each matrix divided by its largest."
    commands = [f"kravl spectra run={trace.path.parent} exact=true" for trace in traces.values()]
    text = {"introduction": INTRODUCTION, "notes": ["Means over the matrices of a tower."], "next": commands}
    publish(out, "kravl: spectra of runs", _table(traces), captions, text)


def mean_decay(values: Mapping[str, Tensor], points: int = 100) -> list[float]:
    """How singular values decay: each site's divided by its largest, averaged over the sites that changed.

    Sites differ in size, so spectra are sampled at ``points`` equal steps of the smaller dimension, from the first
    singular value to the last.
    """
    scaled = [v / v[0] for v in values.values() if v[0] > 0]
    sampled = [v[torch.linspace(0, len(v) - 1, points, dtype=torch.float64).round().long()] for v in scaled]
    return torch.stack(sampled).mean(0).tolist() if sampled else []


def _towers(trace: Trace) -> list[str]:
    return list(dict.fromkeys(locate(site).tower for site in trace.end))


def _quantities(traces: Traces) -> list[str]:
    present = {name for trace in traces.values() for values in trace.end.values() for name in values}
    return [name for name in MEANING if name in present]


def _table(traces: Traces) -> Cells:
    quantities = _quantities(traces)
    rows = [["run", "tower", "matrices", *(MEANING[name] for name in quantities)]]
    for run, trace in traces.items():
        for tower in _towers(trace):
            sites = [values for site, values in trace.end.items() if locate(site).tower == tower]
            numbers = [[values[name] for values in sites if name in values] for name in quantities]
            rows.append([run, tower, str(len(sites)), *(f"{fmean(v):.3g}" if v else "" for v in numbers)])
    return rows


def _panels(traces: Traces, styles: Styles, fill: Callable[[Axes, Traces, Styles, str], None]) -> Figure:
    """One panel per quantity, filled by ``fill(axes, traces, styles, quantity)``."""
    quantities = _quantities(traces)
    titles = [MEANING[name] for name in quantities]
    return panel_grid(titles, lambda axes, i: fill(axes, traces, styles, quantities[i]), COLUMNS)


def _styles(methods: Mapping[str, str]) -> Styles:
    """That of each run's method; every second run of one method has hollow marks."""
    listed = list(methods.values())
    before = {run: listed[:i].count(method) for i, (run, method) in enumerate(methods.items())}
    return {run: mark_of(method, 4) | ({"mfc": "white"} if before[run] % 2 else {}) for run, method in methods.items()}


def _line(styles: Styles, tower: str, run: str) -> dict[str, Any]:
    return {**styles[run], "ls": DASHES[tower], "label": f"{run}, {tower}"}


def _by_layer(axes: Axes, traces: Traces, styles: Styles, quantity: str) -> None:
    for run, trace in traces.items():
        for tower in _towers(trace):
            layers: dict[int, list[float]] = {}
            for site, values in trace.end.items():
                location = locate(site)
                if location.tower == tower and location.layer is not None and quantity in values:
                    layers.setdefault(location.layer, []).append(values[quantity])
            points = sorted((layer, fmean(values)) for layer, values in layers.items())
            if points:
                axes.plot(*zip(*points, strict=True), **_line(styles, tower, run))
    axes.set(xlabel="layer")
    axes.locator_params(axis="x", integer=True)


def _by_step(axes: Axes, traces: Traces, styles: Styles, quantity: str) -> None:
    for run, trace in traces.items():
        for tower in _towers(trace):
            sites = [site for site in trace.end if locate(site).tower == tower]
            steps = [step for step, values in sorted(trace.steps.items()) if quantity in values[sites[0]]]
            line = [fmean(trace.steps[step][site][quantity] for site in sites) for step in steps]
            axes.plot(steps, line, **_line(styles, tower, run))
    axes.set(xlabel="optimiser step")
