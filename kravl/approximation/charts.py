"""Figures of an approximation study: error against budget and spectra, one panel a target, and the comparisons."""

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kravl.approximation.comparison import INKS, bars, heat_map, names
from kravl.approximation.summary import ERROR, OPTIMUM, Row, at_one_budget
from kravl.report.figures import MARKERS, STYLE, save

COLUMNS = 4  # panels side by side
LINES = ("-", "--", ":", "-.")


def draw(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Every figure that ``rows`` allow, PNG and SVG in ``folder``: file name without ending -> what it shows."""
    if not rows:
        return {}
    captions = {}
    with matplotlib.rc_context(STYLE):
        if len({row.budget for row in rows}) > 1:
            save(_panels(rows, _against_budget), folder / "error_against_budget.png")
            captions["error_against_budget"] = (
                "Relative Frobenius error against trainable parameters, mean ± standard deviation over seeds; the line "
                "is the closed-form optimum of the method in the same colour, where there is one. 1 is no better than "
                "zero."
            )
        one = at_one_budget(rows)
        save(heat_map(one), folder / "winners.png")
        captions["winners"] = "Relative Frobenius error in percent at one budget; the best of each target is framed."
        save(_panels(one, _spectra), folder / "spectra.png")
        captions["spectra"] = "Singular values of each target (thick) and of what each method fitted to it."
        if any(row.method == "lora" for row in one):
            save(bars(one), folder / "singular_value_error.png")
            captions["singular_value_error"] = (
                "Mean absolute difference of sorted singular values, LoRA's = 100 (the paper's bar chart). It does not "
                "see directions: a matrix with the right spectrum and the wrong directions has none."
            )
    return captions


def _panels(rows: Sequence[Row], fill: Callable[[Axes, Sequence[Row], list[str]], None]) -> Figure:
    """One panel a target, filled by ``fill(axes, its rows, all methods)``, and one legend."""
    targets, methods = names(rows)
    columns = min(COLUMNS, len(targets))
    lines = ceil(len(targets) / columns)
    figure = Figure(figsize=(max(5.0, 3.0 * columns), 2.5 * lines + 0.8), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes, target in zip(grid, targets, strict=False):
        fill(axes, [row for row in rows if row.target == target], methods)
        axes.set_title(target)
    for axes in list(figure.axes)[len(targets) :]:
        axes.set_visible(False)
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3 * min(columns, 2))
    return figure


def _against_budget(axes: Axes, rows: Sequence[Row], methods: list[str]) -> None:
    for i, method in enumerate(methods):
        own = sorted((row for row in rows if row.method == method), key=lambda row: row.parameters)
        if not own:
            continue
        x = [row.parameters for row in own]
        colour, marker = INKS[i % len(INKS)], MARKERS[i % len(MARKERS)]
        spread = [row.std[ERROR] for row in own]
        axes.errorbar(
            x,
            [row.mean[ERROR] for row in own],
            spread,
            ls="",
            color=colour,
            marker=marker,
            ms=4,
            capsize=2,
            label=method,
        )
        best = [(row.parameters, row.mean[OPTIMUM]) for row in own if OPTIMUM in row.mean]
        if best:
            axes.plot(*zip(*best, strict=True), color=colour, lw=1, ls=LINES[i % len(LINES)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_ylim(-0.03, 1.08)
    axes.set(xlabel="trainable parameters", ylabel="relative error")


def _spectra(axes: Axes, rows: Sequence[Row], methods: list[str]) -> None:
    def line(values: Sequence[float], **style: object) -> None:
        share = [100 * i / (len(values) - 1) for i in range(len(values))]
        axes.plot(share, [value / top for value in values], **style)  # type: ignore[arg-type]

    top = max(rows[0].target_spectrum)
    line(rows[0].target_spectrum, color="black", lw=3.5, alpha=0.35, label="target")
    for row in rows:
        i = methods.index(row.method)
        line(
            row.spectrum,
            color=INKS[i % len(INKS)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=(i, max(1, len(row.spectrum) // 4)),
            ms=4,
            lw=1,
            label=row.method,
        )
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 2)
    axes.set_yticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
    axes.set(xlabel="singular value, % of all", ylabel="relative to the target's")
