"""Atomic writes, and untrusted text, JSON and CSV read within bounds; YAML: yaml_files.py."""

import csv
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from kravl.runtime.errors import InputError, first_line
from kravl.runtime.own_files import create_own

PACKAGE = Path(str(files("kravl")))
FORMULA = re.compile(r"\s*[=+\-@\t\r]")  # how a cell begins that a spreadsheet computes
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")


def shipped(name: str) -> Path:
    """The folder ``name`` that ships with kravl: inside the installed package, or beside it in a checkout."""
    return next(path for path in (PACKAGE / name, PACKAGE.parent / name) if path.is_dir())


def no_folder(path: Path) -> str:
    """What to say of a ``path`` that is not a folder: the nearest one beside it, or the first part that is missing."""
    if path.exists():
        return f"not a folder {path}"
    if variable := re.search(r"\$\{?\w+\}?", str(path)):
        return f"no folder {path}: {variable[0]} is text here; the shell replaces it outside of single quotes"
    absolute = path.absolute()
    there = next(parent for parent in absolute.parents if parent.is_dir())
    if there != absolute.parent:
        return f"no folder {path} ({absolute.parents[len(absolute.parents) - len(there.parents) - 2]} does not exist)"
    close = get_close_matches(path.name, (each.name for each in there.iterdir() if each.is_dir()), n=1)
    return f"no folder {path}{f' (did you mean {path.with_name(close[0])}?)' if close else ''}"


def require_writable(path: Path, instead: str) -> None:
    """Raise InputError where the file, or what is to be a folder, ``path`` cannot be written; nothing of it is left.

    Args:
        instead: what to do, for the message.
    """
    try:
        if path.is_file():
            path.open("r+b").close()
        TemporaryFile(dir=path if path.is_dir() else path.parent).close()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; {instead}") from error


def refuse_endless(path: str | Path) -> None:
    """Raise InputError for what a reader would wait for, or never see the end of: a pipe, a socket or a device."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a path may be text)
    except OSError:
        return  # opening it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"cannot read {path}: it is a pipe or a device, not a file")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it, so that readers see the old or the new one.

    Raises:
        OSError: it cannot be written; names ``path`` and the bytes needed, and leaves the old file intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(create_own(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror} ({len(data):,} bytes needed)", str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``, which only the caller writes to."""
    for leftover in folder.glob(".*"):
        if re.fullmatch(r"\..+\.\d+", leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush what was written to a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def csv_text(rows: Iterable[Sequence[object]], line_end: str = "\r\n") -> str:
    """The ``rows`` as the text of a CSV file, of which a spreadsheet runs nothing.

    A text that it would take for a formula has a ``'`` before it, which spreadsheets know as the sign of a text.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([_plain_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _plain_cell(cell: object) -> object:
    is_formula = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def csv_rows(text: str, where: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file and the line on which each begins, from 1; spaces before a field do not count.

    A field in quotes may span lines. Where a quote is not closed, or text comes after the closing one, no reader can
    know which rows were meant.

    Raises:
        InputError: such a quote, or a field that is longer than 128 KiB; with the line on which its row begins.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != " ", strict=True
    )
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{where}, line {begin}: the row does not end as a row of a CSV file ({error}; read up to line "
                f'{reader.line_num}); close each field that begins with ", and write "" for a " within it'
            ) from error
        yield begin, row


def read_json(path: Path, max_bytes: int = 2**30) -> Any:
    """The content of the JSON file ``path``.

    Args:
        max_bytes: of the file; a larger one is refused.

    Raises:
        InputError: no such file, not JSON, or too large or deeply nested.
    """
    return parse_json(limited_text(path, max_bytes), str(path))


def parse_json(text: str, what: str, unique: bool = False) -> Any:
    """The content of the JSON ``text``, which errors call ``what``.

    Raises:
        InputError: as `read_json`, or, if it is to be ``unique``, a name that comes twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except (ValueError, RecursionError) as error:  # ValueError too for an integer of too many digits
        raise InputError(f"{what} is not JSON: {first_line(error)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{twice[0][:80]!r} comes twice in one object")
    return dict(pairs)


def json_object(text: str, what: str) -> dict[str, Any]:
    """The object in the JSON ``text``. Raises InputError for any other value."""
    content = parse_json(text, what)
    if not isinstance(content, dict):
        raise InputError(f"{what} is not a JSON object")
    return content


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        InputError: there is no such file, or it is not UTF-8.
    """
    refuse_endless(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def limited_text(path: Path, max_bytes: int) -> str:
    """The text of a UTF-8 file of at most ``max_bytes``. Raises InputError as `read_text`, or if it is larger."""
    refuse_endless(path)
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise InputError(f"{path} has {size:,} bytes; at most {max_bytes:,} are read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
