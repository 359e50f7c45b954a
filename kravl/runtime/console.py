"""Tables of text on a terminal."""

import sys
from collections.abc import Collection, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text


def text_table(rows: Sequence[Sequence[str]], left: Collection[str] = (), **options: Any) -> Table:
    """A header and rows as a rich table: cells are plain text, never markup, and long ones fold.

    Args:
        left: titles of the columns that hold text, not numbers; by default the first column alone.
        options: passed to rich's table, such as ``caption``.
    """
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, **options)
    for title in rows[0]:
        is_text = title in (left or rows[0][:1])
        table.add_column(Text(title), justify="left" if is_text else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def output(width: int = 160) -> Console:
    """Standard output; ``width`` columns if it is not a terminal, so that a row stays on one line for grep."""
    return Console(width=None if sys.stdout.isatty() else width)
