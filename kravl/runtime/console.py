"""Text and tables on a terminal, which nothing in them steers."""

import io
import logging
import sys
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kravl.runtime.errors import printable


class PrintableRecord(logging.LogRecord):
    """A line of a log, in which a name from anywhere cannot steer the terminal."""

    def getMessage(self) -> str:  # noqa: N802 (logging's)
        return printable(super().getMessage())


def keep_terminal_plain() -> None:
    """From now on nothing that is logged steers the terminal, and what it cannot show is spelt out."""
    logging.setLogRecordFactory(PrintableRecord)
    # Pillow's, with a path of its source: an image that is too large is an error of kravl's, which says what allows it
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain(text: object) -> Text:
    """``text`` for a console: no markup, and nothing that steers the terminal."""
    return Text(printable(text))


def text_table(rows: Sequence[Sequence[str]], left: Collection[str] = (), **options: Any) -> Table:
    """A header and rows as a rich table: cells are plain text, never markup, and long ones fold.

    Args:
        left: titles of the columns that hold text, not numbers; by default the first column alone.
        options: passed to rich's table, such as ``caption``.
    """
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, **options)
    for title in rows[0]:
        is_text = title in (left or rows[0][:1])
        table.add_column(plain(title), justify="left" if is_text else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(plain, row))
    return table


def output(width: int = 160) -> Console:
    """Standard output; ``width`` columns if it is not a terminal, so that a row stays on one line for grep."""
    return Console(width=None if sys.stdout.isatty() else width)


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
