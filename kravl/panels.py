"""The panels of a comparison: accuracy against shots, on each set, and out of domain against in domain."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes

from kravl.aggregate import ZERO_SHOT, Group
from kravl.robustness import ID, OOD, weight_line

# Okabe and Ito's palette for all kinds of colour vision (https://jfly.uni-koeln.de/color/), its yellow left out
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"  # a second cue beside the colour
SPREAD = 0.6  # of a row's height, over which the methods' marks are spread


def _styles(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    methods = sorted({group.method for group in groups} - {ZERO_SHOT})
    return {m: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}


def _styles_and_zero_shot(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    return {ZERO_SHOT: ("gray", "*"), **_styles(groups)}


def against_shots(axes: Axes, groups: Sequence[Group]) -> None:
    """Accuracy in domain and, dashed, the mean of the other sets, by images a class."""
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


def by_set(axes: Axes, groups: Sequence[Group]) -> None:
    """Accuracy on each set, in domain first and then by what is lost there; of one number of images a class."""
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
    axes.set(xlabel="top-1 %", title=f"on each set, {amount} images a class")


def against_in_domain(axes: Axes, groups: Sequence[Group]) -> None:
    """The mean of the other sets against accuracy in domain, with the lines of WiSE-FT."""
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
        if line := weight_line(group, groups):
            x_line, y_line = [100 * x for _, x, _ in line], [100 * y for _, _, y in line]
            axes.plot(x_line, y_line, color=colour, lw=1, alpha=0.6)
    title = "in and out of domain" if one_amount else "in and out of domain, by images a class"
    axes.set(xlabel="in domain, top-1 %", ylabel="mean of the other sets, top-1 %", title=title)
