"""Every data set that has a card, as a table: what it is, its licence, its size, and whether it is on disk."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kravl.data import catalog
from kravl.data.download.acquire import on_disk

FILE_WIDTH = 1000  # columns, where the output is no terminal: a set is one line for grep


class ListedSet(NamedTuple):
    """A line of the table; sizes are of the files to download."""

    name: str
    title: str
    choice: str
    classes: str
    images: str
    licence: str
    size: str
    on_disk: str


def list_sets(data_root: Path, choices: Mapping[str, str]) -> list[ListedSet]:
    """One for each card, by name; ``choices`` are the settings by which a run chooses them."""
    names = [path.parent.name for path in sorted(catalog.folder().glob("*/card.yaml"))]
    return [_row(name, choices.get(name, ""), data_root) for name in names]


def show_table(listed: Sequence[ListedSet]) -> None:
    """Print the table, wrapped to the width of the terminal."""
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for field in ListedSet._fields:
        numeric = field in ("classes", "images", "size")
        table.add_column(field.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)


def _row(name: str, choice: str, data_root: Path) -> ListedSet:
    card = catalog.card(name)
    images = card["images"]
    folder = on_disk(name, data_root)
    total = sum(images.values()) if isinstance(images, dict) else images
    counts = (str(card["classes"]), f"{total:,}" if total else "?")
    return ListedSet(name, card["title"], choice, *counts, card["licence"], _size(card), str(folder or "no"))


def _size(card: Mapping[str, Any]) -> str:
    """The total size of the files; ``>`` if the size of some is not known."""
    sizes = [file.get("bytes") for file in card.get("files", ())]
    known = [size for size in sizes if size is not None]
    if not sizes:
        return "by hand" if "manual" in card else ""
    return f"{'' if len(known) == len(sizes) else '> '}{decimal(sum(known))}" if known else "?"
