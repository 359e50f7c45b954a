"""The results of a study: results.csv, table.md, figures and a page that opens from disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kravl.analysis.approximation.figures import draw_errors
from kravl.analysis.approximation.summary import ERROR, OPTIMUM, error_table, largest_gap, summarise, write_fits_csv
from kravl.report.page import publish
from kravl.tracking.methods import shown

HEADING = (
    "Relative Frobenius error in percent, mean ± sample standard deviation over seeds; 100 is no better than zero. In "
    "brackets the closed-form optimum of the method at that size, where there is one. After a method's name: its "
    "number of trainable parameters."
)
NEXT = (
    "kravl approximate preset=budgets",
    "kravl approximate targets=[steep] variants.steep.of=power_law variants.steep.exponent=2 name=steep",
    "kravl approximate targets=[delta] variants.delta.of=delta variants.delta.run=runs/NAME/seed1 name=delta",
)


def report_fits(records: Sequence[Mapping[str, Any]], notes: Sequence[str], out: Path) -> None:
    """Write everything to ``out`` and print the table and ``notes``."""
    rows = summarise(records)
    if not rows:
        return
    write_fits_csv(rows, out / "results.csv")
    seconds = sum(record["seconds"] for record in records)
    lines = [*notes, f"{len(records)} fits, {seconds:.0f} s of fitting"]
    if worst := largest_gap(rows):
        gap = 100 * (worst.mean[ERROR] - worst.mean[OPTIMUM])
        lines.append(f"largest gap between training and a closed-form optimum: {gap:.2f} points "
                     f"({shown(worst.method)} on {worst.target})")  # fmt: skip
    text = {"introduction": [HEADING], "notes": lines, "next": NEXT}
    publish(out, "kravl: which updates can an adapter express?", error_table(rows), draw_errors(rows, out), text)
