"""Your own images, listed in a table: a CSV, TSV or JSONL file with the columns path, label and split."""

import logging
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from kravl.data.catalog import existing_folder
from kravl.data.holdout import check_share, hold_out, say_held_out
from kravl.data.images import FileOpener, image_endings
from kravl.data.source import SPLIT_OF, Samples, Source, composed_form, refuse_outside
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import csv_rows, parse_json, read_text

logger = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split")
SPLITS = ("train", "val", "test")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
WRITTEN = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}  # separators as they are typed
WORD_OF = {"\t": "tab", ";": "semicolon", ",": "comma"}  # as a shell takes them
Row = tuple[str, str]  # path, label


class Table(Source):
    """The images that ``file`` lists; classes are its labels, sorted.

    Args:
        file: ``.csv``, ``.tsv`` or ``.txt`` with a first line that names the columns, or ``.jsonl`` with one object per
            line. Other columns are ignored. Splits are train, val and test; without that column all are train, and
            where there is train and val alone, val is tested on, as in a folder.
        root: the folder that paths are relative to; None for the table's own. No path may leave it.
        columns: what the table calls ``path``, ``label`` and ``split``, where it is something else.
        separator: one character, or ``tab``; None for a comma in ``.csv`` and a tab in ``.tsv`` and ``.txt``.
        test_share: of each class is held out to test on where no row is test or val; None holds out nothing.
        test_seed: decides which images those are.

    Raises:
        InputError: a file, column, label, split or path that is not as expected; with the line and the reason.
    """

    def __init__(  # noqa: PLR0913 (each is a setting of data.source)
        self,
        file: str | None,
        root: str | None = None,
        name: str = "table",
        templates: str = "single",
        columns: Mapping[str, Any] | None = None,
        separator: str | None = None,
        test_share: float | None = None,
        test_seed: int = 0,
    ) -> None:
        if file is None:
            raise InputError(f"{name}: no table is given; pass data.file=...")
        path = Path(file)
        self._root = existing_folder(name, path.parent if root is None else root)
        self._rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        first: dict[str, int] = {}
        for number, record in _records(path, _columns(columns or {}), separator):
            image, label, split = self._checked(path, number, record)
            if first.setdefault(image, number) != number:
                raise InputError(f"{path}, line {number}: {image} is in line {first[image]} already")
            self._rows[split].append((image, label))
        if self._rows["train"] and self._rows["val"] and not self._rows["test"]:
            self._rows["test"], self._rows["val"] = self._rows["val"], []  # as of ImageNet
            logger.info("%s: no row of %s is test; those of val are tested on", name, path)
        self._share, self._seed = (
            (None, 0) if self._rows["test"] or not self._rows["train"] else (test_share, test_seed)
        )
        if self._share is not None:
            check_share(name, self._share)
            say_held_out(name, self._share, self._seed, "or a column of splits in the table")
        labels = sorted({label for rows in self._rows.values() for _, label in rows})
        splits = [split for split in SPLITS if self._rows[split] or (split == "test" and self._share is not None)]
        held_out = () if self._share is None else (f"{self._share} {self._seed}",)
        identity = (str(self._root.resolve()), str(path.resolve()), *held_out)
        super().__init__(name, labels, splits, identity, templates=templates)
        self.divided = self._share is not None

    def samples(self, split: str) -> Samples:
        """The images in the order of the table."""
        if self._share is None or split == "val":
            return self._listed(split)
        return hold_out(self._listed("train"), self._share, self._seed)[split == "test"]

    def _listed(self, split: str) -> Samples:
        label_of = {label: i for i, label in enumerate(self.class_ids)}
        names = tuple(image for image, _ in self._rows[split])
        return Samples(names, tuple(label_of[label] for _, label in self._rows[split]), FileOpener(self._root, names))

    def _checked(self, table: Path, number: int, record: dict[str, object]) -> tuple[str, str, str]:
        """Path, label and split of one record."""
        where = f"{table}, line {number}"
        image, label = (_text(where, record, column) for column in COLUMNS[:2])
        split = _text(where, record, "split") if "split" in record else "train"
        if split.lower() not in SPLIT_OF:
            raise unknown(f"split in {where}:", split, SPLIT_OF)
        return _below(where, self._root, image), composed_form(label), SPLIT_OF[split.lower()]


def _below(where: str, root: Path, image: str) -> str:
    """``image`` as a path below ``root``, with ``/``, as the file system spells it where there is such a file.

    A table may come from Windows, with ``\\`` between folders, from macOS, with another form of Unicode, and from the
    machine itself, with whole paths into ``root``.

    Raises:
        InputError: it leaves ``root``.
    """
    if "\\" in image and not (root / image).is_file():
        if PureWindowsPath(image).drive:
            raise InputError(f"{where}: {image[:200]!r} names a drive of Windows; paths are relative to {root}")
        image = PureWindowsPath(image).as_posix()
    path = PurePosixPath(image)
    if path.is_absolute() and ".." not in path.parts:
        for folder in (root.absolute(), root.resolve()):
            if path.is_relative_to(folder):
                path = path.relative_to(folder)
                break
    refuse_outside(where, path.as_posix())
    if not image.isascii() and not (root / path).is_file():
        forms = (unicodedata.normalize(form, path.as_posix()) for form in ("NFC", "NFD"))
        return next((form for form in forms if (root / form).is_file()), path.as_posix())
    return path.as_posix()


def _columns(given: Mapping[str, Any]) -> dict[str, str]:
    """What the table calls each of `COLUMNS`."""
    for column in given:
        if column not in COLUMNS:
            raise unknown("column of a table", column, COLUMNS)
    return {column: str(given.get(column) or column) for column in COLUMNS}


def _records(path: Path, columns: Mapping[str, str], separator: str | None) -> Iterator[tuple[int, dict[str, object]]]:
    """Line number and record of each row, under the names of `COLUMNS`."""
    kind = path.suffix.lower()
    if kind not in (*DELIMITERS, ".jsonl"):
        raise unknown("ending of a table", kind, (*DELIMITERS, ".jsonl"))
    text = read_text(path)
    rows = _objects(path, text) if kind == ".jsonl" else _lines(path, text, columns, _character(separator, kind))
    for number, record in rows:
        # a column that was named must be there; that of splits need not, as long as nobody named it
        yield number, {column: record.get(name) for column, name in columns.items() if name in record or name != column}


def _character(separator: str | None, kind: str) -> str:
    character = DELIMITERS[kind] if separator is None else WRITTEN.get(separator, separator)
    if len(character) != 1 or character in '"\r\n':
        raise InputError(f"data.source.separator is {separator!r}; it must be one character, tab or space")
    return character


def _lines(
    path: Path, text: str, columns: Mapping[str, str], separator: str
) -> Iterator[tuple[int, dict[str, object]]]:
    rows = ((number, row) for number, row in csv_rows(text, str(path), separator) if row)
    _, header = next(rows, (1, []))
    named = [column.strip() for column in header]
    for column in COLUMNS:
        if columns[column] not in named and (column, columns[column]) != ("split", "split"):
            others = [WORD_OF.get(mark, mark) for mark in ",;\t|" if mark != separator and mark in ",".join(named[:1])]
            advice = f"data.source.separator={others[0]}" if others else f"data.source.columns.{column}=..."
            raise InputError(
                f"{path}: the first line must name the column {columns[column]!r}; it names "
                f"{', '.join(named)[:200]!r}; {advice} says otherwise"
            )
        if named.count(columns[column]) > 1:
            raise InputError(f"{path}: the first line names the column {columns[column]!r} more than once")
    told = False
    for number, row in rows:
        if any(field.strip() for field in row[len(named) :]):
            raise InputError(
                f"{path}, line {number}: {len(row)} fields, of which the first line names {len(named)}; a field that "
                "holds the separator stands in quotes"
            )
        if _goes_on(f"{path}, line {number}", dict(zip(named, row, strict=False)), columns, separator) and not told:
            told = True
            logger.warning(
                "%s, line %d: a field in quotes goes on in the next line; was a quote left open?", path, number
            )
        missing = [None] * (len(named) - len(row))
        yield number, dict(zip(named, [*row, *missing], strict=False))


def _goes_on(where: str, row: Mapping[str, str], columns: Mapping[str, str], separator: str) -> bool:
    """Whether a field goes on in the next line, as a caption in quotes may.

    Raises:
        InputError: that of a path, label or split does, or the next line is a row of its own by its looks: a quote that
            is left open, and another one further down, make one row of two and of all between.
    """
    broken = {name: field.splitlines()[1:] for name, field in row.items() if "\n" in field or "\r" in field}
    if not broken:
        return False
    lines = [line for following in broken.values() for line in following]
    fields = (dict(zip(row, line.split(separator), strict=False)) for line in lines)
    rows = [line for line in fields if _looks_like_row(line.get(columns["path"], ""), len(line) == len(row))]
    if rows or set(columns.values()) & broken.keys():
        raise InputError(
            f"{where}: a field in quotes goes on in the next line, {''.join(lines[:1])[:80]!r}; "
            'close it where it ends, and write "" for a " within it'
        )
    return True


def _looks_like_row(path: str, whole: bool) -> bool:
    is_image = PurePosixPath(path.strip()).suffix.lower() in image_endings()
    return is_image or (whole and bool(path) and " " not in path.strip())


def _objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # JSON text may hold other breaks
        if not line.strip():
            continue
        record = parse_json(line, f"{path}, line {number},", unique=True)
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: {line[:80]!r} is not an object with path and label")
        yield number, record


def _text(where: str, record: dict[str, object], column: str) -> str:
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a label may be a number
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {column} is {repr(value)[:200]}; it must be text")
    return value.strip()
