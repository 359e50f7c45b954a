"""Figures of groups of runs."""

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kravl.report.groups import Group
from kravl.report.robustness import ID, OOD, wise_ft_line
from kravl.runtime.files import write_atomic
from kravl.tracking.run_folder import ZERO_SHOT

# Okabe and Ito's palette for all kinds of colour vision (https://jfly.uni-koeln.de/color/), without its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"  # a second cue beside the colour
LONGEST_FILE = 150  # characters; endings follow
SPREAD = 0.6  # fraction of a row's height over which the methods' markers are spread
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kravl",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def _styles(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    methods = sorted({group.method for group in groups} - {ZERO_SHOT})
    return {m: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}


def _styles_and_zero_shot(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    return {ZERO_SHOT: ("gray", "*"), **_styles(groups)}


def against_shots(axes: Axes, groups: Sequence[Group]) -> None:
    """In-domain accuracy and, dashed, the mean of the other sets, against images per class."""
    counts = sorted({group.shots for group in groups if group.shots})
    everything = 2 * counts[-1] if counts else 1  # the position of "all images"
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
    axes.set(xlabel="images per class", ylabel="top-1 %", title="in domain; dashed: mean of the other sets")


def by_set(axes: Axes, groups: Sequence[Group]) -> None:
    """Accuracy on each set, in domain first and then the others from best to worst, at one number of shots."""
    styles = _styles_and_zero_shot(groups)
    means: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for name in group.names:
            if name.endswith("/accuracy") and (stat := group.stat(name)):
                means[name].append(stat.mean)
    names = sorted(means, key=lambda name: (name != ID, -fmean(means[name])))
    for i, group in enumerate(sorted(groups, key=lambda group: list(styles).index(group.method))):
        stats = [(row, stat) for row, name in enumerate(names) if (stat := group.stat(name))]
        rows = [row + SPREAD * (i / max(1, len(groups) - 1) - 0.5) for row, _ in stats]
        values, deviations = [100 * stat.mean for _, stat in stats], [100 * (stat.std or 0) for _, stat in stats]
        colour, marker = styles[group.method]
        axes.errorbar(values, rows, xerr=deviations, ls="", color=colour, marker=marker, ms=5, label=group.method)
    axes.set_yticks(range(len(names)), [name.removesuffix("/accuracy").replace("_", " ") for name in names])
    axes.invert_yaxis()
    amount = next(group.amount for group in groups if group.method != ZERO_SHOT)
    axes.set(xlabel="top-1 %", title=f"on each set, {amount} images per class")


def against_in_domain(axes: Axes, groups: Sequence[Group]) -> None:
    """The mean of the other sets against in-domain accuracy, with WiSE-FT's lines."""
    styles = _styles_and_zero_shot(groups)
    one_amount = len({group.shots for group in groups if group.method != ZERO_SHOT}) == 1
    for group in groups:
        x, y = group.stat(ID), group.stat(OOD)
        if x is None or y is None:
            continue
        colour, marker = styles[group.method]
        point = (100 * x.mean, 100 * y.mean)
        spread = (100 * (y.std or 0), 100 * (x.std or 0))
        axes.errorbar(*point, *spread, ls="", color=colour, marker=marker, capsize=2)
        if group.method != ZERO_SHOT and not one_amount:
            axes.annotate(group.amount, point, xytext=(4, 4), textcoords="offset points", fontsize=7)
        if line := wise_ft_line(group, groups):
            x_line, y_line = [100 * x for _, x, _ in line], [100 * y for _, _, y in line]
            axes.plot(x_line, y_line, color=colour, lw=1, alpha=0.6)
    title = "in and out of domain" if one_amount else "in and out of domain, by images per class"
    axes.set(xlabel="in domain, top-1 %", ylabel="mean of the other sets, top-1 %", title=title)


def draw_comparison(groups: Sequence[Group], folder: Path) -> str:
    """Draw the ``groups`` of one setting into ``folder`` as PNG and SVG; returns the PNG's name.

    Left: accuracy against images per class or, for a single number of shots, accuracy on each set. Right: the other
    sets against in-domain, if there are others.
    """
    stem = file_name(groups[0].setting)
    has_ood = any(group.stat(OOD) for group in groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5 if has_ood else 5, 4), layout="constrained")
        panels = figure.subplots(1, 2 if has_ood else 1, squeeze=False)[0]
        amounts = {group.shots for group in groups if group.shots != 0}
        left = by_set if has_ood and len(amounts) == 1 else against_shots
        left(panels[0], groups)
        if has_ood:
            against_in_domain(panels[1], groups)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(", ".join(groups[0].setting))
        save(figure, folder / f"{stem}.png")
    return f"{stem}.png"


def file_name(setting: Sequence[str]) -> str:
    """The parts of a setting as a file name, with a hash if characters had to be replaced."""
    name = re.sub(r"[^\w.-]+", "_", "-".join(setting))[:LONGEST_FILE]
    if len("-".join(setting)) <= LONGEST_FILE and all(re.fullmatch(r"[\w.]+", part) for part in setting):
        return name
    return f"{name}-{hashlib.sha256(json.dumps(list(setting)).encode()).hexdigest()[:8]}"


def panel_grid(titles: Sequence[str], fill: Callable[[Axes, int], None], columns: int) -> Figure:
    """A panel per title, filled by ``fill(axes, index)``, at most ``columns`` side by side, and one legend."""
    columns = min(columns, len(titles))
    lines = ceil(len(titles) / columns)
    figure = Figure(figsize=(max(5.0, 3.2 * columns), 2.5 * lines + 0.7), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    handles: dict[Any, Artist] = {}
    for i, title in enumerate(titles):
        fill(grid[i], i)
        grid[i].set_title(title)
        handles |= {label: handle for handle, label in zip(*grid[i].get_legend_handles_labels(), strict=True)}
    for axes in grid[len(titles) :]:
        axes.set_visible(False)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=max(3, columns))
    return figure


def draw_decay(values: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot ``values``: method -> singular values relative to the largest, at equal steps of the smaller dimension."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        axes = figure.subplots()
        for (method, decay), colour, marker in zip(values.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
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
    """Write ``figure`` as PNG and SVG to ``path`` with either suffix: the same bytes each time."""
    formats: dict[str, dict[str, Any]] = {".png": {"dpi": 150}, ".svg": {"metadata": {"Date": None}}}
    for suffix, options in formats.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], **options)
        write_atomic(path.with_suffix(suffix), content.getvalue())
