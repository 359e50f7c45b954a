"""A self-contained HTML page about runs that opens from disk: a table, figures and pictures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from kravl.report.tables import Cells, markdown_rows
from kravl.runtime.console import output, plain, text_table
from kravl.runtime.files import write_atomic

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """An image file and its caption, which is also its alternative text."""

    path: Path
    caption: str

    @property
    def source(self) -> str:
        """The file as a data URL."""
        return f"data:{KINDS[self.path.suffix]};base64,{base64.b64encode(self.path.read_bytes()).decode()}"


def write_page(
    path: Path, title: str, rows: Cells, pictures: Sequence[Picture], text: Mapping[str, Sequence[str]]
) -> None:
    """Write the page.

    Args:
        rows: the header, then the rows of the table; cells are shown as plain text.
        text: ``introduction``, ``notes`` and ``next``: lines above the table, below it, and at the end.
    """
    template = files("kravl.report").joinpath("page.html").read_text(encoding="utf-8")
    write_atomic(path, render(template, title=title, rows=rows, pictures=pictures, **text))


def render(template: str, **values: Any) -> str:
    """The template with ``values`` escaped unless it marks them as HTML; a missing one is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values)


def publish(out: Path, title: str, rows: Cells, captions: Mapping[str, str], text: Mapping[str, Sequence[str]]) -> None:
    """Write table.md and index.html to ``out``, and print the table with its introduction and notes.

    Args:
        captions: of the figures in ``out``, by file name without suffix.
        text: as for `write_page`.
    """
    write_atomic(out / "table.md", "\n".join(markdown_rows(rows)) + "\n")
    pictures = [Picture(out / f"{name}.svg", caption) for name, caption in captions.items()]
    write_page(out / "index.html", title, rows, pictures, text)
    console = output()
    console.print(text_table(rows))
    for line in (*text["introduction"], *text["notes"], f"Figures and page: {out / 'index.html'}"):
        console.print(plain(line), soft_wrap=True)
