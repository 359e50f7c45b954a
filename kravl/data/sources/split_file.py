"""A data set defined by a published split file, as CoOp's (https://github.com/KaiyangZhou/CoOp, DATASETS.md).

The JSON object ``{"train": [[path, label, class name], ...], "val": [...], "test": [...]}``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kravl.data.catalog import existing_folder, find_folder, find_split_file
from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source, refuse_outside
from kravl.runtime.errors import InputError, some_of
from kravl.runtime.files import read_json

SPLITS = ("train", "val", "test")
Record = tuple[str, int, str]


class SplitFile(Source):
    """Images split and labelled by ``split_file``.

    Args:
        root: the data root, or the set's own folder; see `catalog.find_folder`.
        split_file: a file in the set's folder, or a path of its own.
        images: the folder within the set's that the file's paths start from; None if that is ``root`` itself.

    Raises:
        InputError: no such folder or file, or a split file that contradicts itself; with the record and the reason.
    """

    def __init__(
        self, name: str, root: str, split_file: str, images: str | None = None, templates: str = "single"
    ) -> None:
        folder = existing_folder(name, root) if images is None else find_folder(name, root)
        path = find_split_file(name, folder, root, split_file)
        self._root = folder if images is None else folder / images
        self._records = {split: _records(path, split, rows) for split, rows in _load(path).items()}
        names = _class_names(path, [record for rows in self._records.values() for record in rows])
        _refuse_overlap(path, self._records)
        splits = [split for split in SPLITS if self._records[split]]
        super().__init__(name, names, splits, (str(self._root.resolve()), str(path.resolve())), templates=templates)

    def samples(self, split: str) -> Samples:
        """The images of the file's list, in its order."""
        names = tuple(path for path, _, _ in self._records[split])
        return Samples(names, tuple(label for _, label, _ in self._records[split]), FileOpener(self._root, names))


def _load(path: Path) -> dict[str, Sequence[Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(split), list) for split in SPLITS):
        raise InputError(f"split file {path} must be an object with the lists {', '.join(SPLITS)}")
    return {split: content[split] for split in SPLITS}


def _records(path: Path, split: str, rows: Sequence[Any]) -> list[Record]:
    records = []
    for i, row in enumerate(rows):
        where = f"split file {path}, {split} record {i}"
        if not (isinstance(row, list) and [type(field) for field in row] == [str, int, str]):
            raise InputError(f"{where}: {str(row)[:200]} is not [path, label, class name]")
        refuse_outside(where, row[0])
        records.append((row[0], row[1], row[2]))
    return records


def _class_names(path: Path, records: Sequence[Record]) -> list[str]:
    names: dict[int, str] = {}
    for image, label, name in records:
        if names.setdefault(label, name) != name:
            raise InputError(f"split file {path}: label {label} is {names[label]!r}, but {name!r} for {image}")
    outside = [label for label in sorted(names) if not 0 <= label < len(names)]
    if outside:
        listed = some_of([f"{label} ({names[label]})" for label in outside])
        raise InputError(f"split file {path}: {len(names)} classes need the labels 0 to {len(names) - 1}, not {listed}")
    return [names[label] for label in range(len(names))]


def _refuse_overlap(path: Path, records: dict[str, list[Record]]) -> None:
    seen: dict[str, str] = {}
    for split, rows in records.items():
        for image, _, _ in rows:
            if image in seen:
                raise InputError(f"split file {path}: {image} is in {seen[image]} and again in {split}")
            seen[image] = split
