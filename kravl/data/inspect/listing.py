"""Every data set that has a card, as a table: what it is, its licence, its size, and whether it is on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal

from kravl.data import catalog
from kravl.data.download.acquire import on_disk
from kravl.runtime.console import output, text_table

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
    titles = [field.replace("_", " ") for field in ListedSet._fields]
    output(FILE_WIDTH).print(text_table([titles, *listed], left={*titles} - {"classes", "images", "size"}))


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
