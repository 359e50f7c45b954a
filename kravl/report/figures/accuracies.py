"""Figures of groups of runs: accuracies against images per class, on each set, and out of domain against in domain."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kravl.report.figures.drawing import (
    LINE,
    STYLE,
    Place,
    label_beside,
    line_of,
    mark_of,
    save,
    settle,
)
from kravl.report.groups import Group, amounts
from kravl.report.robustness import ID, OOD, wise_ft_line
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT

SPREAD = 0.7  # fraction of a row's height over which the methods' markers are spread
BARS: dict[str, Any] = {"capsize": 0, "elinewidth": 0.8}
WHERE = {ID: "in domain", OOD: "mean of the other sets"}


def _methods(groups: Iterable[Group]) -> list[str]:
    """In the order of the groups, zero-shot first."""
    return list(dict.fromkeys(sorted((g.method for g in groups), key=lambda method: method != ZERO_SHOT)))


def against_shots(axes: Axes, groups: Sequence[Group], name: str) -> None:
    """The accuracy ``name`` against images per class, each line labelled at its end."""
    counts = sorted({group.shots for group in groups if group.shots})
    everything = 2 * counts[-1] if counts else 1  # the position of "all images"
    places = []
    for method in _methods(groups):
        found = [(g.shots or everything, s) for g in groups if g.method == method and (s := g.stat(name))]
        if method == ZERO_SHOT:
            for _, stat in found:
                axes.axhline(100 * stat.mean, color=mark_of(method)["color"], lw=1, ls=":")
                places.append(Place.of(method, counts[-1] if counts else 1, 100 * stat.mean))
        elif found:
            x, stats = zip(*found, strict=True)
            y, spread = [100 * s.mean for s in stats], [100 * (s.std or 0) for s in stats]
            axes.errorbar(x, y, spread, **BARS, **mark_of(method), **line_of(method), lw=1.2)
            places.append(Place.of(method, x[-1], y[-1]))
    ticks = {**{count: str(count) for count in counts}, everything: "all"}
    if all(group.shots is not None for group in groups):
        ticks.pop(everything, None)
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set(xlabel="images per class", ylabel="top-1 %", title=WHERE[name])
    label_beside(axes, places)


def by_set(axes: Axes, groups: Sequence[Group]) -> None:
    """Accuracy on each set, in domain first and then the others from best to worst, at one number of shots."""
    means: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for name in group.names:
            if name.endswith("/accuracy") and (stat := group.stat(name)):
                means[name].append(stat.mean)
    names = sorted(means, key=lambda name: (name != ID, -fmean(means[name])))
    order = _methods(groups)
    for group in sorted(groups, key=lambda group: order.index(group.method)):
        stats = [(row, stat) for row, name in enumerate(names) if (stat := group.stat(name))]
        offset = SPREAD * (order.index(group.method) / max(1, len(order) - 1) - 0.5)
        values, deviations = [100 * stat.mean for _, stat in stats], [100 * (stat.std or 0) for _, stat in stats]
        rows = [row + offset for row, _ in stats]
        axes.errorbar(values, rows, xerr=deviations, ls="", **BARS, **mark_of(group.method), label=shown(group.method))
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color="black", lw=0.5, alpha=0.3)
    axes.set_yticks(range(len(names)), [name.removesuffix("/accuracy").replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set(xlabel="top-1 %", title=f"on each set, {_said(groups)}")


def _said(groups: Sequence[Group]) -> str:
    return " and ".join(dict.fromkeys(f"{g.amount} images per class" for g in groups if g.method != ZERO_SHOT))


def at_most_shots(groups: Sequence[Group]) -> list[Group]:
    """The groups of the largest number of images per class that each method was run with, and zero-shot."""
    most: dict[str, Group] = {}
    for group in sorted(groups, key=lambda group: inf if group.shots is None else group.shots):
        most[group.method] = group
    return [group for group in groups if most[group.method] is group or group.method == ZERO_SHOT]


def against_in_domain(axes: Axes, groups: Sequence[Group]) -> None:
    """The mean of the other sets against in-domain accuracy, with WiSE-FT's curves, which end in the marks."""
    largest = amounts(group for group in groups if group.method != ZERO_SHOT)[-1]
    places = []
    for group in at_most_shots(groups):
        x, y = group.stat(ID), group.stat(OOD)
        if x is None or y is None:
            continue
        mark = mark_of(group.method)
        if line := wise_ft_line(group, groups):
            x_line, y_line = [100 * x for _, x, _ in line], [100 * y for _, _, y in line]
            axes.plot(x_line, y_line, color=mark["color"], lw=1, **line_of(group.method), alpha=0.8)
        spread = (100 * (y.std or 0), 100 * (x.std or 0))
        axes.errorbar(100 * x.mean, 100 * y.mean, spread[0], spread[1], ls="", **BARS, **mark, zorder=3)
        fewer = group.amount != largest and group.method != ZERO_SHOT
        places.append(Place.of(group.method, 100 * x.mean, 100 * y.mean, f" ({group.amount})" if fewer else ""))
    title = f"in and out of domain, {largest} images per class"
    axes.set(xlabel=f"{WHERE[ID]}, top-1 %", ylabel=f"{WHERE[OOD]}, top-1 %", title=title)
    label_beside(axes, places)


def draw_comparison(groups: Sequence[Group], folder: Path) -> str:
    """Draw the ``groups`` of one setting into ``folder`` as PNG and SVG; returns the PNG's name.

    Accuracy against images per class, in and out of domain or, for a single number of shots, on each set; and the other
    sets against in-domain at the most shots, if there are others.
    """
    stem = groups[0].setting.file_name
    has_ood = any(group.stat(OOD) for group in groups)
    several = len({group.shots for group in groups if group.method != ZERO_SHOT}) > 1
    column = (2 + len(_methods(groups))) * LINE / 72  # inches
    with matplotlib.rc_context(STYLE):
        if not has_ood:
            figure = Figure(figsize=(5.5, max(4.0, 1.0 + column)), layout="constrained")
            against_shots(figure.subplots(), groups, ID)
        elif several:
            figure = Figure(figsize=(9.5, 2 * max(3.6, 1.0 + column)), layout="constrained")
            panels = figure.subplot_mosaic([["in", "out"], ["both", "both"]])
            against_shots(panels["in"], groups, ID)
            against_shots(panels["out"], groups, OOD)
            against_in_domain(panels["both"], groups)
        else:
            sets = sum(name.endswith("/accuracy") for name in {name for group in groups for name in group.names})
            rows = 1.0 + sets * max(0.3, 0.055 * len(groups))
            figure = Figure(figsize=(9.5, max(4.0, 1.0 + column, rows)), layout="constrained")
            left, right = figure.subplots(1, 2)
            by_set(left, groups)
            against_in_domain(right, groups)
        figure.suptitle(", ".join(groups[0].setting))
        settle(figure)
        save(figure, folder / f"{stem}.png")
    return f"{stem}.png"
