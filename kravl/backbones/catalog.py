"""What kravl can do with every model of open_clip and timm, as a table that ships with it: read without torch.

`make breadth` writes it. A line of the table is a JSON object; the first has the releases and commits it was made with.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from kravl.runtime.errors import LONGEST, InputError, nearest
from kravl.runtime.files import json_object, read_text, shipped

LIBRARIES = ("open_clip", "timm")
MODELS, FAMILIES = "models.jsonl", "families.jsonl"
PACKAGES = ("torch", "timm", "open_clip_torch", "transformers")
# means and standard deviations of the RGB channels that have a name
NORMALISATIONS = {
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)): "OpenAI",
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "ImageNet",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "Inception",
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "none",
}
Row = dict[str, Any]


class Table(NamedTuple):
    """The releases and commits that a table was made with, and its rows."""

    head: Row
    rows: list[Row]


def folder() -> Path:
    """Where the tables are."""
    return shipped("experiments/breadth")


def read_table(path: Path) -> Table:
    """The table in a JSONL file. Raises InputError where it is not there or damaged."""
    lines = read_text(path).splitlines()
    if not lines:
        raise InputError(f"{path} is empty; `make breadth` makes it anew")
    head, *rows = (json_object(line, f"line {number} of {path}") for number, line in enumerate(lines, 1))
    return Table(head, rows)


def installed_versions() -> dict[str, str | None]:
    """The releases of `PACKAGES` that are installed, without importing them; None for what is not."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def other_versions(head: Row) -> str:
    """In one line which installed releases are not those of the table; empty where all that are installed are."""
    installed = installed_versions()
    differ = [
        f"{package} {version} (installed: {installed[package]})"
        for package, version in head["versions"].items()
        if installed[package] not in (None, version)
    ]
    return f"made with {', '.join(differ)}: some models may differ; `make breadth` makes it anew" if differ else ""


def tags(row: Row) -> list[str]:
    """The published weights of a model, by tag."""
    return [tag for group in row["preprocess"] for tag in group["tags"]]


def exact(rows: Iterable[Row], pattern: str) -> list[Row]:
    """The rows of this very name, with or without one of its tags (``vit_base_patch16_224.mae``), in any case."""
    wanted = pattern.casefold()
    stem, _, tag = wanted.partition(".")
    named = [row for row in rows if row["name"].casefold() in (wanted, stem)]
    return [row for row in named if not tag or row["name"].casefold() == wanted or tag in map(str.casefold, tags(row))]


def matching(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose name holds one of the ``patterns``, or matches one that has ``*``, ``?`` or ``[``; all for none.

    Raises:
        InputError: a pattern matches nothing; the nearest names are told.
    """
    found: dict[int, Row] = {} if patterns else dict(enumerate(rows))
    for pattern in patterns:
        named = {id(row) for row in exact(rows, pattern)}
        hits = {i: row for i, row in enumerate(rows) if id(row) in named or _matches(row["name"], pattern)}
        if not hits:
            raise InputError(_no_model(pattern, {row["name"].casefold(): row["name"] for row in rows}))
        found |= hits
    return [row for i, row in sorted(found.items())]


def _no_model(pattern: str, names: Mapping[str, str]) -> str:
    near = [names[name] for name in nearest(pattern[:LONGEST].casefold(), names)]
    listed = f"the nearest are {', '.join(near)}" if near else "there are none to choose from"
    return f"no model {pattern[:LONGEST]!r} among {len(names):,}; {listed}"


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.casefold(), pattern.casefold()
    return fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name


def preparation(group: Row) -> str:
    """What weights expect of an image, in words: size, interpolation, how it is resized, and whose normalisation."""
    size, mean, std = group["image_size"], tuple(group["mean"]), tuple(group["std"])
    pixels = "x".join(map(str, size)) if isinstance(size, list) else str(size)
    scaled = NORMALISATIONS.get((mean, std)) or f"mean {_numbers(mean)} std {_numbers(std)}"
    return f"{pixels} {group['interpolation']} {group['resize_mode']} {scaled}"


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
