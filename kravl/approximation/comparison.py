"""All targets and methods of a study in one figure: who wins where, and the paper's bars."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from kravl.approximation.summary import ERROR, Row
from kravl.report.figures import COLOURS

INKS = (*COLOURS, "#888888")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "--", "++", "**", "||")  # a second cue for bars


def names(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Targets and methods in order of appearance."""
    return list(dict.fromkeys(row.target for row in rows)), list(dict.fromkeys(row.method for row in rows))


def heat_map(rows: Sequence[Row]) -> Figure:
    """Relative Frobenius error in percent, targets x methods; the best of each target is framed."""
    targets, methods = names(rows)
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
    axes.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
    axes.set_yticks(range(len(targets)), targets)
    figure.colorbar(image, label="relative Frobenius error")
    return figure


def bars(rows: Sequence[Row]) -> Figure:
    """Mean absolute difference of sorted singular values, LoRA's = 100."""
    targets, methods = names(rows)
    values = {(row.target, row.method): row.mean["singular_value_error"] for row in rows}
    figure = Figure(figsize=(max(7.0, 1.1 * len(targets)), 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(methods)
    for j, method in enumerate(methods):
        x = [i + width * (j - (len(methods) - 1) / 2) for i in range(len(targets))]
        lora = [values.get((target, "lora"), 0.0) for target in targets]
        y = [100 * values.get((t, method), 0.0) / base if base else 0.0 for t, base in zip(targets, lora, strict=True)]
        colour, hatch = INKS[j % len(INKS)], HATCHES[j % len(HATCHES)]
        axes.bar(x, y, width, label=method, color=colour, hatch=hatch, edgecolor="white", lw=0.3)
    axes.axhline(100, color="black", lw=0.8)
    axes.set_ylim(0, 200)
    axes.set_xlim(-0.6, len(targets) - 0.4)
    axes.set_xticks(range(len(targets)), targets, rotation=30, ha="right")
    axes.set(ylabel="% of LoRA's", title="mean absolute difference of sorted singular values (bars above 200 are cut)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
