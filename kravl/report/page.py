"""One HTML page of runs that opens from disk: a table, figures and pictures, with everything inside the file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from kravl.report.tables import Table
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
    path: Path, title: str, rows: Table, pictures: Sequence[Picture], text: dict[str, Sequence[str]]
) -> None:
    """Write the page.

    Args:
        rows: the header, then the rows of the table; whatever is in them is shown as text.
        text: ``introduction``, ``notes`` and ``next``: lines above the table, below it, and at the end.
    """
    template = files("kravl.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(title=title, rows=rows, pictures=pictures, **text)
    write_atomic(path, page)
