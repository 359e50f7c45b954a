"""Accuracy against shots, and out of distribution against in distribution, one figure per setting."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kravl.aggregate import ZERO_SHOT, Group

# Okabe and Ito's palette for all kinds of colour vision (https://jfly.uni-koeln.de/color/), its yellow left out
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"  # a second cue beside the colour
ID, OOD = "test/accuracy", "ood_mean"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kravl",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(groups: Sequence[Group], folder: Path) -> str:
    """Draw the ``groups`` of one setting into ``folder`` as PNG and SVG; the PNG's file name."""
    stem = re.sub(r"[^\w.-]+", "_", "-".join(groups[0].setting))
    has_ood = any(group.stat(OOD) for group in groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5 if has_ood else 5, 4), layout="constrained")
        panels = figure.subplots(1, 2 if has_ood else 1, squeeze=False)[0]
        _against_shots(panels[0], groups)
        if has_ood:
            _against_in_domain(panels[1], groups)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(", ".join(groups[0].setting))
        save(figure, folder / f"{stem}.png")
    return f"{stem}.png"


def draw_decay(values: Mapping[str, Sequence[float]], path: Path) -> None:
    """Method -> singular values relative to the largest, at equal steps of the smaller dimension; PNG and SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        axes = figure.subplots()
        for (method, decay), colour, marker in zip(values.items(), COLOURS, MARKERS, strict=False):
            share = [100 * i / (len(decay) - 1) for i in range(len(decay))]
            axes.plot(share, decay, label=method, color=colour, marker=marker, markevery=len(decay) // 8)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-3)
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
        axes.set(xlabel="singular value, % of the smaller dimension", ylabel="relative to the largest")
        axes.set_title("spectrum of the weight update, mean over matrices")
        axes.legend()
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG and as SVG, ``path`` with either ending: the same bytes each time."""
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _styles(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    methods = sorted({group.method for group in groups} - {ZERO_SHOT})
    return {m: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}


def _against_shots(axes: Axes, groups: Sequence[Group]) -> None:
    counts = sorted({group.shots for group in groups if group.shots})
    everything = 2 * counts[-1] if counts else 1  # where "all images" is drawn
    for method, (colour, marker) in _styles(groups).items():
        for name, line, face in ((ID, "-", colour), (OOD, "--", "white")):
            points = [(g.shots or everything, s) for g in groups if g.method == method and (s := g.stat(name))]
            if points:
                x, stats = zip(*points, strict=True)
                y, spread = [100 * s.mean for s in stats], [100 * (s.std or 0) for s in stats]
                axes.errorbar(
                    x,
                    y,
                    spread,
                    label=method if name == ID else None,
                    ls=line,
                    color=colour,
                    marker=marker,
                    mfc=face,
                    capsize=2,
                )
    for group in groups:
        for name, line in ((ID, "-"), (OOD, "--")):
            if group.method == ZERO_SHOT and (stat := group.stat(name)):
                axes.axhline(100 * stat.mean, color="gray", lw=1, ls=line, label=ZERO_SHOT if name == ID else None)
    ticks = {**{count: str(count) for count in counts}, everything: "all"}
    if all(group.shots is not None for group in groups):
        ticks.pop(everything, None)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set(xlabel="images a class", ylabel="top-1 %", title="in domain; dashed: mean of the other sets")


def _against_in_domain(axes: Axes, groups: Sequence[Group]) -> None:
    styles = {**_styles(groups), ZERO_SHOT: ("gray", "*")}
    for group in groups:
        x, y = group.stat(ID), group.stat(OOD)
        if x is None or y is None:
            continue
        colour, marker = styles[group.method]
        point = (100 * x.mean, 100 * y.mean)
        spread = (100 * (y.std or 0), 100 * (x.std or 0))
        axes.errorbar(*point, *spread, ls="", color=colour, marker=marker, capsize=2)
        if group.method != ZERO_SHOT:
            axes.annotate(group.amount, point, xytext=(4, 4), textcoords="offset points", fontsize=7)
        if path := _weight_line(group):
            axes.plot(*zip(*path, strict=True), color=colour, lw=1, alpha=0.6)
    axes.set(xlabel="in domain, top-1 %", ylabel="mean of the other sets, top-1 %", title="by images a class")


def _weight_line(group: Group) -> list[tuple[float, float]]:
    """Percent (in domain, out of it) along WiSE-FT's alpha, meaned over the runs; empty without such points."""
    points: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for run in group.runs:
        record = run.record
        if not record["wise_ft"] or group.method == ZERO_SHOT:
            continue
        ends = [{"alpha": 0.0, **(record["zero_shot"] or {})}, {"alpha": 1.0, **record["metrics"]}]
        for point in (*ends, *record["wise_ft"]):
            if ID in point and point.get(OOD) is not None:
                points[point["alpha"]].append((100 * point[ID], 100 * point[OOD]))
    return [(fmean(x for x, _ in points[alpha]), fmean(y for _, y in points[alpha])) for alpha in sorted(points)]
