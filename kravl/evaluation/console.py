"""The results of an evaluation as tables for a terminal."""

from collections.abc import Mapping

from rich.table import Table

from kravl.evaluation.metrics import Results, summary
from kravl.runtime.console import text_table

COLUMNS = {"accuracy": "top-1", "per_class_recall": "recall", "macro_f1": "macro-F1", "ece": "ECE"}


def comparison_table(zero_shot: Results | None, adapted: Results) -> Table:
    """One row per set and summary, in percent; with zero-shot results each cell reads ``zero-shot → adapted``."""
    stages = [_rows(results) for results in (zero_shot, adapted) if results is not None]
    rows = [["set", "images", *COLUMNS.values()]]
    for name, metrics in stages[-1].items():
        cells = (
            " → ".join(f"{100 * stage[name][metric]:.1f}" for stage in stages) if metric in metrics else ""
            for metric in COLUMNS
        )
        rows.append([name, f"{metrics['count']:.0f}" if name in adapted else "", *cells])
    table = text_table(rows, caption="percent" if zero_shot is None else "percent, zero-shot → adapted")
    table.rows[len(adapted) - 1].end_section = True
    return table


def curve_table(curve: Mapping[float, Results]) -> Table:
    """One row per alpha of the WiSE-FT curve: top-1 of every set and the out-of-domain mean, in percent."""
    rows = {alpha: _rows(results) for alpha, results in curve.items()}
    sets = [name for name in next(iter(rows.values())) if name != "harmonic mean"]
    lines = [[f"{alpha:.2f}", *(f"{100 * row[name]['accuracy']:.1f}" for name in sets)] for alpha, row in rows.items()]
    caption = "top-1 in percent, from the pretrained (0) to the adapted model (1)"
    return text_table([["alpha", *sets], *lines], caption=caption)


def _rows(results: Results) -> dict[str, Mapping[str, float]]:
    overall = {"OOD mean": summary(results)["ood_mean"], "harmonic mean": summary(results)["harmonic_mean"]}
    return {**results, **{name: {"accuracy": value} for name, value in overall.items() if value is not None}}
