"""One HTML page of runs that opens from disk: a table, figures and pictures, with everything inside the file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from rich.text import Text

from kravl.report.tables import Table, markdown_rows
from kravl.runtime.console import output, text_table
from kravl.runtime.files import write_atomic

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """An image file with what it shows, for those who read it and for those who hear it."""

    path: Path
    caption: str

    @property
    def source(self) -> str:
        """The file as a data URL."""
        return f"data:{KINDS[self.path.suffix]};base64,{base64.b64encode(self.path.read_bytes()).decode()}"


def write_page(
    path: Path, title: str, rows: Table, pictures: Sequence[Picture], text: Mapping[str, Sequence[str]]
) -> None:
    """Write the page.

    Args:
        rows: the header, then the rows of the table; whatever is in them is shown as text.
        text: ``introduction``, ``notes`` and ``next``: lines above the table, below it, and at the end.
    """
    template = files("kravl.report").joinpath("page.html").read_text(encoding="utf-8")
    write_atomic(path, render(template, title=title, rows=rows, pictures=pictures, **text))


def render(template: str, **values: Any) -> str:
    """The template with ``values`` as text, where it does not say that they are HTML; a missing one is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values)


def publish(out: Path, title: str, rows: Table, captions: Mapping[str, str], text: Mapping[str, Sequence[str]]) -> None:
    """Write table.md and index.html to ``out``, and print the table with its introduction and notes.

    Args:
        captions: of the figures in ``out`` by their names, without ending.
        text: as `write_page`'s.
    """
    write_atomic(out / "table.md", "\n".join(markdown_rows(rows)) + "\n")
    pictures = [Picture(out / f"{name}.svg", caption) for name, caption in captions.items()]
    write_page(out / "index.html", title, rows, pictures, text)
    console = output()
    console.print(text_table(rows))
    for line in (*text["introduction"], *text["notes"], f"Figures and page: {out / 'index.html'}"):
        console.print(Text(line), soft_wrap=True)
