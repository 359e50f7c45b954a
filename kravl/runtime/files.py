"""Atomic writes, and untrusted YAML, JSON and CSV read within bounds."""

import csv
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, NodeEvent, ScalarEvent

from kravl.runtime.errors import InputError, first_line
from kravl.runtime.own_files import create_own

PACKAGE = Path(str(files("kravl")))
MAX_YAML = 2**20  # bytes; the largest shipped file has 8 kB
MAX_NODES = 100_000  # values after expanding every alias
MAX_DEPTH = 50
FORMULA = re.compile(r"\s*[=+\-@\t\r]")  # how a cell begins that a spreadsheet computes
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")
MAX_WORD = 3000  # characters; a longer hexadecimal number has more digits than Python prints
PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # slower without libyaml


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

    Raises OSError, which names ``path`` and the bytes needed; the old file is intact.
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


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file ``path``; interpolations are left unresolved.

    Raises:
        InputError: no such file, not a mapping, a tag that would construct an object, or too large once expanded.
    """
    return parse_yaml(_text(path, MAX_YAML), str(path))


def parse_yaml(text: str, what: str) -> dict[str, Any]:
    """The mapping in the YAML ``text``, which errors call ``what``. Raises InputError as `read_yaml`."""
    content = _parse(text, what)
    if not isinstance(content, DictConfig):
        raise InputError(f"{what} is not a mapping")
    return {str(key): value for key, value in OmegaConf.to_container(content).items()}  # type: ignore[union-attr]


def parse_list(text: str, what: str) -> list[Any]:
    """The list in the YAML or JSON ``text``, which errors call ``what``. Raises InputError as `read_yaml`."""
    content = _parse(text, what)
    if not isinstance(content, ListConfig):
        raise InputError(f"{what} is not a list")
    return list(OmegaConf.to_container(content))  # type: ignore[arg-type]


def _parse(text: str, what: str) -> Any:
    try:
        _refuse_growth(text, what)
        return OmegaConf.load(io.StringIO(text)) if text.strip() else OmegaConf.create({})
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, LookupError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is not readable as YAML: {_place(error)}") from error


def write_yaml(path: Path, tree: Mapping[str, Any]) -> None:
    """Write ``tree`` so that `read_yaml` reads it back. Raises OSError as `write_atomic`."""
    write_atomic(path, OmegaConf.to_yaml(OmegaConf.create(dict(tree))))


def _refuse_growth(text: str, what: str) -> None:
    """Check before anything is built: from a stream of events, in which neither depth nor aliases cost memory."""
    sizes: dict[str, int | None] = {}  # anchor -> values below it; None while it is open
    open_nodes: list[tuple[str | None, int]] = []  # anchor, values seen before it
    seen = 0
    for event in yaml.parse(text, Loader=LOADER):
        seen += _values(event, sizes, what)
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, seen))
            if event.anchor:
                sizes[event.anchor] = None
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = seen - before + 1
        elif isinstance(event, ScalarEvent) and event.anchor:
            sizes[event.anchor] = 1
        if seen > MAX_NODES or len(open_nodes) > MAX_DEPTH:
            raise InputError(f"{what} has more than {MAX_NODES:,} values, or lists within lists beyond {MAX_DEPTH}")


def _values(event: Event, sizes: dict[str, int | None], what: str) -> int:
    """How many values the event adds. Raises InputError for a custom tag, an overlong word, or a recursive alias."""
    if isinstance(event, AliasEvent):
        size = sizes.get(event.anchor, 1)  # an unknown one is refused when the file is loaded
        if size is None:
            raise InputError(f"{what} contains itself: *{event.anchor}")
        return size
    if isinstance(event, ScalarEvent) and len(event.value) > MAX_WORD and len(event.value.split()) == 1:
        raise InputError(f"{what} has a word of more than {MAX_WORD:,} characters")
    tag = getattr(event, "tag", None)
    if isinstance(event, NodeEvent) and tag not in (None, "!", *PLAIN_TAGS):
        raise InputError(f"{what} asks for an object, {tag!r}; only text, numbers, lists and mappings are read")
    return int(isinstance(event, NodeEvent))


def read_json(path: Path, max_bytes: int = 2**30) -> Any:
    """The content of the JSON file ``path``.

    Args:
        max_bytes: of the file; a larger one is refused.

    Raises:
        InputError: no such file, not JSON, or too large or deeply nested.
    """
    return parse_json(_text(path, max_bytes), str(path))


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


def _text(path: Path, max_bytes: int) -> str:
    refuse_endless(path)
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise InputError(f"{path} has {size:,} bytes; at most {max_bytes:,} are read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _place(error: BaseException) -> str:
    """The problem, and its line if YAML's error has one."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return "a value is not what its tag says" if type(error) in (KeyError, IndexError) else first_line(error)
