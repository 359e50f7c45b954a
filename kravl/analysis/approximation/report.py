"""What a study shows: results.csv, table.md, figures and a page that opens from disk."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kravl.analysis.approximation.figures import draw_errors
from kravl.analysis.approximation.summary import ERROR, OPTIMUM, error_table, largest_gap, summarise, write_fits_csv
from kravl.report.page import Picture, write_page
from kravl.report.tables import markdown_rows
from kravl.runtime.files import write_atomic

FILE_WIDTH = 160  # columns, where the output is no terminal
HEADING = (
    "Relative Frobenius error in percent, mean ± sample standard deviation over seeds; 100 is no better than zero. In "
    "brackets the closed-form optimum of the method at that size, where there is one. Behind a method's name: its "
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
    table = error_table(rows)
    write_atomic(out / "table.md", "\n".join(markdown_rows(table)) + "\n")
    pictures = [Picture(out / f"{name}.svg", caption) for name, caption in draw_errors(rows, out).items()]
    seconds = sum(record["seconds"] for record in records)
    lines = [*notes, f"{len(records)} fits, {seconds:.0f} s of fitting"]
    if worst := largest_gap(rows):
        gap = 100 * (worst.mean[ERROR] - worst.mean[OPTIMUM])
        lines.append(f"largest distance of training from a closed-form optimum: {gap:.2f} points "
                     f"({worst.method} on {worst.target})")  # fmt: skip
    text = {"introduction": [HEADING], "notes": lines, "next": NEXT}
    write_page(out / "index.html", "kravl: which updates can an adapter express?", table, pictures, text)
    _show(table, lines, out)


def _show(rows: Sequence[Sequence[str]], lines: Sequence[str], out: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    shown = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for i, title in enumerate(rows[0]):
        shown.add_column(Text(title), justify="right" if i else "left", overflow="fold")
    for row in rows[1:]:
        shown.add_row(*map(Text, row))
    console.print(shown)
    for line in (HEADING, *lines, f"Figures and page: {out / 'index.html'}"):
        console.print(Text(line), soft_wrap=True)
