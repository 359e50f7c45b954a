"""Your own images, listed in a table: a CSV, TSV or JSONL file with the columns path, label and split."""

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from kravl.data.catalog import existing_folder
from kravl.data.images import FileOpener
from kravl.data.source import SPLIT_OF, Samples, Source, refuse_outside
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import parse_json, read_text

COLUMNS = ("path", "label", "split")
SPLITS = ("train", "val", "test")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
Row = tuple[str, str]  # path, label


class Table(Source):
    """The images that ``file`` lists; classes are its labels, sorted.

    Args:
        file: ``.csv`` or ``.tsv`` with a first line that names the columns, or ``.jsonl`` with one object per line.
            Other columns are ignored. Splits are train, val and test; a table without that column is all train.
        root: the folder that paths are relative to; None for the table's own. No path may leave it.

    Raises:
        InputError: a file, column, label, split or path that is not as expected; with the line and the reason.
    """

    def __init__(
        self,
        file: str | None,
        root: str | None = None,
        name: str = "table",
        templates: str = "single",
    ) -> None:
        if file is None:
            raise InputError(f"{name}: no table is given; pass data.file=...")
        path = Path(file)
        self._root = existing_folder(name, path.parent if root is None else root)
        self._rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        first: dict[str, int] = {}
        for number, record in _records(path):
            image, label, split = _checked(path, number, record)
            if first.setdefault(image, number) != number:
                raise InputError(f"{path}, line {number}: {image} is in line {first[image]} already")
            self._rows[split].append((image, label))
        labels = sorted({label for rows in self._rows.values() for _, label in rows})
        splits = [split for split in SPLITS if self._rows[split]]
        identity = (str(self._root.resolve()), str(path.resolve()))
        super().__init__(name, labels, splits, identity, templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of the table."""
        label_of = {label: i for i, label in enumerate(self.class_ids)}
        names = tuple(image for image, _ in self._rows[split])
        return Samples(names, tuple(label_of[label] for _, label in self._rows[split]), FileOpener(self._root, names))


def _records(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Line number and record of each row."""
    kind = path.suffix.lower()
    if kind not in (*DELIMITERS, ".jsonl"):
        raise unknown("ending of a table", kind, (*DELIMITERS, ".jsonl"))
    text = read_text(path)
    if kind == ".jsonl":
        yield from _objects(path, text)
        return
    reader = csv.DictReader(StringIO(text, newline=""), delimiter=DELIMITERS[kind], skipinitialspace=True)
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    for column in COLUMNS[:2]:
        if column not in columns:
            raise InputError(
                f"{path}: the first line must name the column {column!r}; it names {', '.join(columns)[:200]!r}"
            )
    for record in reader:
        yield reader.line_num, dict(record)


def _objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        record = parse_json(line, f"{path}, line {number},")
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: {line[:80]!r} is not an object with path and label")
        yield number, record


def _checked(path: Path, number: int, record: dict[str, object]) -> tuple[str, str, str]:
    """Path, label and split of one record."""
    where = f"{path}, line {number}"
    image, label = (_text(where, record, column) for column in COLUMNS[:2])
    split = _text(where, record, "split") if "split" in record else "train"
    if split.lower() not in SPLIT_OF:
        raise unknown(f"split in {where}:", split, SPLIT_OF)
    refuse_outside(where, image)
    return Path(image).as_posix(), label, SPLIT_OF[split.lower()]


def _text(where: str, record: dict[str, object], column: str) -> str:
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a label may be a number
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {column} is {repr(value)[:200]}; it must be text")
    return value.strip()
