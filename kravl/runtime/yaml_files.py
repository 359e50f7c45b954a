"""YAML files as plain mappings and lists: what would construct an object, or grow, is refused before it is built."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, NodeEvent, ScalarEvent

from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import limited_text, write_atomic

MAX_YAML = 2**20  # bytes; the largest shipped file has 8 kB
MAX_NODES = 100_000  # values after expanding every alias
MAX_DEPTH = 50
MAX_WORD = 3000  # characters; a longer hexadecimal number has more digits than Python prints
PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # slower without libyaml
NOTHING = ("", "~", "null", "Null", "NULL")  # what YAML reads as a null


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file ``path``; interpolations are left unresolved.

    Raises:
        InputError: no such file, not a mapping, a tag that would construct an object, or too large once expanded.
    """
    return parse_yaml(limited_text(path, MAX_YAML), str(path))


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
        # OmegaConf would parse the value again, as a file of its own
        if isinstance(event, ScalarEvent) and not open_nodes and not (event.implicit[0] and event.value in NOTHING):
            raise InputError(f"{what} is a single value, {event.value[:40]!r}, not a mapping or a list")
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


def _place(error: BaseException) -> str:
    """The problem, and its line if YAML's error has one."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return "a value is not what its tag says" if type(error) in (KeyError, IndexError) else first_line(error)
