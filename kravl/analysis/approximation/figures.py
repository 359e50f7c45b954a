"""Figures of approximation errors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kravl.analysis.approximation.summary import ERROR, OPTIMUM, FitSummary, at_one_budget
from kravl.report.figures.drawing import STYLE, line_of, mark_of, panel_grid, save
from kravl.tracking.methods import MARKERS, look, shown

COLUMNS = 4  # panels side by side
# a second cue for bars
HATCHES = dict(zip(MARKERS, ("", "//", "..", "xx", "\\\\", "oo", "--", "++", "||"), strict=True))


def draw_errors(rows: Sequence[FitSummary], folder: Path) -> dict[str, str]:
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
        if all(row.spectrum for row in one):
            save(_panels(one, _spectra), folder / "spectra.png")
            captions["spectra"] = "Singular values of each target (thick) and of what each method fitted to it."
        if any(row.method == "lora" for row in one):
            save(bars(one), folder / "singular_value_error.png")
            captions["singular_value_error"] = (
                "Mean absolute difference of sorted singular values, LoRA's = 100 (the paper's bar chart). It does not "
                "see directions: a matrix with the right spectrum and the wrong directions has none."
            )
    return captions


def _panels(rows: Sequence[FitSummary], fill: Callable[[Axes, Sequence[FitSummary], list[str]], None]) -> Figure:
    """One panel per target, filled by ``fill(axes, its rows, all methods)``."""
    targets, methods = targets_and_methods(rows)
    by_target = [[row for row in rows if row.target == target] for target in targets]
    return panel_grid(targets, lambda axes, i: fill(axes, by_target[i], methods), COLUMNS)


def _against_budget(axes: Axes, rows: Sequence[FitSummary], methods: list[str]) -> None:
    for method in methods:
        members = sorted((row for row in rows if row.method == method), key=lambda row: row.parameters)
        if not members:
            continue
        x = [row.parameters for row in members]
        spread = [row.std[ERROR] for row in members]
        axes.errorbar(
            x,
            [row.mean[ERROR] for row in members],
            spread,
            ls="",
            **mark_of(method, 4),
            capsize=2,
            label=shown(method),
        )
        best = [(row.parameters, row.mean[OPTIMUM]) for row in members if OPTIMUM in row.mean]
        if best:
            axes.plot(*zip(*best, strict=True), color=look(method).light, lw=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_ylim(-0.03, 1.08)
    axes.set(xlabel="trainable parameters", ylabel="relative error")


def _spectra(axes: Axes, rows: Sequence[FitSummary], methods: list[str]) -> None:
    def line(values: Sequence[float], **style: object) -> None:
        share = [100 * i / (len(values) - 1) for i in range(len(values))]
        axes.plot(share, [value / top for value in values], **style)  # type: ignore[arg-type]

    top = max(rows[0].target_spectrum)
    line(rows[0].target_spectrum, color="black", lw=3.5, alpha=0.35, label="target")
    for row in rows:
        i = methods.index(row.method)
        line(
            row.spectrum,
            **mark_of(row.method, 4),
            **line_of(row.method),
            markevery=(i, max(1, len(row.spectrum) // 4)),
            lw=1,
            label=shown(row.method),
        )
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 2)
    axes.set_yticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
    axes.set(xlabel="singular value, % of all", ylabel="relative to the target's")


def targets_and_methods(rows: Sequence[FitSummary]) -> tuple[list[str], list[str]]:
    """Targets and methods in order of appearance."""
    return list(dict.fromkeys(row.target for row in rows)), list(dict.fromkeys(row.method for row in rows))


def heat_map(rows: Sequence[FitSummary]) -> Figure:
    """Relative Frobenius error in percent, targets x methods; the best of each target is framed."""
    targets, methods = targets_and_methods(rows)
    errors = {(row.target, row.method): row.mean[ERROR] for row in rows}
    figure = Figure(figsize=(1.6 + 0.85 * len(methods), 1.2 + 0.32 * len(targets)), layout="constrained")
    axes = figure.subplots()
    table = [[errors.get((target, method), float("nan")) for method in methods] for target in targets]
    image = axes.imshow(table, cmap="cividis", vmin=0.0, vmax=1.0, aspect="auto")
    for i, line in enumerate(table):
        known = [error for error in line if error == error]
        for j, error in enumerate(line):
            if error == error:
                wins = round(error, 3) == round(min(known), 3)
                box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "black"} if wins else None
                ink = "black" if wins or error > 0.5 else "white"
                weight = "bold" if wins else "normal"
                axes.text(j, i, f"{100 * error:.1f}", ha="center", va="center", color=ink, weight=weight, bbox=box)
    axes.grid(False)
    axes.set_xticks(range(len(methods)), map(shown, methods), rotation=30, ha="right")
    axes.set_yticks(range(len(targets)), targets)
    figure.colorbar(image, label="relative Frobenius error")
    return figure


def bars(rows: Sequence[FitSummary]) -> Figure:
    """Mean absolute difference of sorted singular values, LoRA's = 100."""
    targets, methods = targets_and_methods(rows)
    values = {(row.target, row.method): row.mean["singular_value_error"] for row in rows}
    figure = Figure(figsize=(max(7.0, 1.1 * len(targets)), 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(methods)
    for j, method in enumerate(methods):
        x = [i + width * (j - (len(methods) - 1) / 2) for i in range(len(targets))]
        lora = [values.get((target, "lora"), 0.0) for target in targets]
        y = [100 * values.get((t, method), 0.0) / base if base else 0.0 for t, base in zip(targets, lora, strict=True)]
        seen = look(method)
        axes.bar(x, y, width, label=seen.name, color=seen.light, hatch=HATCHES[seen.marker], edgecolor="white", lw=0.3)
    axes.axhline(100, color="black", lw=0.8)
    axes.set_ylim(0, 200)
    axes.set_xlim(-0.6, len(targets) - 0.4)
    axes.set_xticks(range(len(targets)), targets, rotation=30, ha="right")
    axes.set(ylabel="% of LoRA's", title="mean absolute difference of sorted singular values (bars above 200 are cut)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
