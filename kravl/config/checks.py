"""Every number and word of a composed config against the bounds in the schema, before anything is loaded."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep
from omegaconf import BooleanNode, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from kravl.config.bounds import FINITE, Bounds, shown
from kravl.config.hydra_errors import wrong_type
from kravl.config.quoting import types_of
from kravl.runtime.errors import InputError, printable, unknown

INTEGER = Bounds(-(2**63), 2**63 - 1, whole=True)  # where nothing else bounds it
OR_TEXT = ("trainer.devices", "trainer.val_check_interval")  # auto, or a time
DIGITS = re.compile(r"[-+]?\d+(\.\d*)?")
NUMBERS = {"int", "float", "None"}  # types of a setting of a class that is a number


def check_bounds(config: Any) -> None:
    """Check every setting of a composed config.

    Raises:
        InputError: a value out of its bounds, or of another type than its class takes; with the legal ones.
    """
    schema = OmegaConf.get_type(config)
    if is_dataclass(schema):
        # those that follow others last, so that a message names what was said
        for key, spec, value in sorted(_settings(config, schema), key=lambda each: _follows(config, each[0])):
            _check(key, spec, value, schema)


def check_choices(overrides: Sequence[Override], names: Callable[[str], Sequence[str]]) -> None:
    """Check what is chosen of each group of files; ``names`` are those of a group, none of what is no group.

    Raises:
        InputError: a number, a mapping or a text that no file can have as its name, at which Hydra fails.
    """
    for override in overrides:
        key = str(override.key_or_group)
        if override.is_delete() or not (names(key) or key.startswith("hydra/")):
            continue
        for choice in _listed(override) if override.is_sweep_override() else [override.value()]:
            for name in choice if isinstance(choice, list) else [choice]:
                text = name.text if isinstance(name, QuotedString) else name
                if not isinstance(text, str) or _unencodable(text):
                    raise unknown(key, shown(printable(str(override.input_line).partition("=")[2])), names(key))


def check_sweeps(config: Any, overrides: Sequence[Override], config_name: str) -> None:
    """Check each value that a sweep lists of a single setting. Raises InputError as `check_bounds`."""
    for sweep in overrides:
        _check_flag(config, sweep)
        if sweep.is_sweep_override() and OmegaConf.select(config, sweep.key_or_group.partition(".")[0]) is not None:
            changed = config.copy()
            for value in _listed(sweep):
                text = value.text if isinstance(value, QuotedString) else value
                try:
                    OmegaConf.update(changed, sweep.key_or_group, text)
                except ValidationError as error:
                    raise wrong_type(f"{sweep.key_or_group}={shown(text)}", config_name) from error
                check_bounds(changed)


def _check_flag(config: Any, override: Override) -> None:
    """Raise InputError for a number in place of true or false: OmegaConf takes any but 0 for true."""
    key = str(override.key_or_group)
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    node = parent._get_node(name, validate_access=False) if OmegaConf.is_dict(parent) else None
    for value in _listed(override) if override.is_sweep_override() else [override.value()]:
        text = value.text if isinstance(value, QuotedString) else str(value)
        if isinstance(node, BooleanNode) and DIGITS.fullmatch(text) and float(text) not in (0, 1):
            raise InputError(f"{key}={shown(text)}: it must be true or false")


def _listed(sweep: Override) -> list[Any]:
    """The values of a sweep; of a range or an interval, which lie between them, its ends."""
    value: Any = sweep.value()
    if sweep.is_interval_sweep():
        return [value.start, value.end]
    if isinstance(value, RangeSweep):
        return [value.start, value.stop - value.step]  # type: ignore[operator]
    return [] if isinstance(value, Glob) else list(sweep.sweep_iterator())  # a glob chooses files


def _settings(config: Any, schema: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Dotted key, field of the schema and resolved value of every setting that has one."""
    for spec in fields(schema):
        node = config._get_node(spec.name)
        if node is None or OmegaConf.is_missing(config, spec.name):
            continue
        child = OmegaConf.get_type(config, spec.name)
        if is_dataclass(child):
            yield from _settings(config[spec.name], child, f"{prefix}{spec.name}.")
        else:
            value = config[spec.name]
            yield f"{prefix}{spec.name}", spec, _plain(value) if OmegaConf.is_config(value) else value


def _follows(config: Any, key: str) -> bool:
    section, _, name = key.rpartition(".")
    return bool(OmegaConf.is_interpolation(OmegaConf.select(config, section) if section else config, name))


def _plain(node: Any) -> Any:
    """Resolved, unless a part waits for what only another command gives."""
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(node)


def _check(key: str, spec: Field[Any], value: Any, schema: Any) -> None:
    bounds, each, choices = (spec.metadata.get(name) for name in ("bounds", "each", "choices"))
    if choices:
        _check_words(key, value, spec)
    for text in value if isinstance(value, list) else [value]:
        _check_text(key, text)
    if isinstance(value, list) and each:
        _check_list(key, value, spec, each)
    elif isinstance(value, Mapping):
        _check_mapping(key, value, spec, schema)
    elif isinstance(value, list) and "like" in spec.metadata:
        for place, item in enumerate(value):
            _check_mapping(f"{key}.{place}", item, spec, schema)
    elif bounds and isinstance(value, int | float):
        _within(key, value, bounds)


def _check_mapping(key: str, value: Mapping[str, Any], spec: Field[Any], schema: Any) -> None:
    like = spec.metadata.get("like")
    named = {f.name: f.metadata["bounds"] for f in fields(like) if f.metadata.get("bounds")} if like else {}
    for place, number in _numbers(value, key):
        _check_text(place, number)
        _check_named(place, number, {**named, **spec.metadata.get("named", {})}, schema)


def _check_words(key: str, value: Any, spec: Field[Any]) -> None:
    """Raise InputError for a word that a setting does not take, or a list of them where it takes one."""
    choices, alone = spec.metadata["choices"], spec.metadata.get("alone")
    words = value if isinstance(value, list) and alone else [value]
    for word in words:
        if alone and isinstance(word, str) and "," in word:
            raise InputError(f"{key}={shown(word)}: several are a list, {key}=[{shown(word).strip('[]')}]")
        if word is not None and word not in choices:
            raise unknown(key, word, choices)
    if words != list(dict.fromkeys(words)) or not words or (alone in words and len(words) > 1):
        listed = ",".join(map(str, words))
        raise InputError(f"{key}=[{listed}]: it is one or several of {', '.join(choices)}, each once, {alone} alone")


def _check_text(key: str, text: Any) -> None:
    """Raise InputError for an empty text, which no setting takes, and for one that no file of kravl can hold."""
    if text == "":
        raise InputError(f"{key}= is empty; leave it out, or give a value")
    if isinstance(text, str) and "\0" in text:
        raise InputError(f"{key}={shown(text)!r} holds a character of no name")
    if _unencodable(text):
        raise InputError(f"{key}={shown(text)!a} is not UTF-8; rename it, or give a link to it")


def _unencodable(text: Any) -> bool:
    """Whether a text has half a character, as a file name that is not UTF-8 has here."""
    try:
        str(text if isinstance(text, str) else "").encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_list(key: str, numbers: list[Any], spec: Field[Any], each: Bounds) -> None:
    if len(numbers) < spec.metadata.get("shortest", 0):
        raise InputError(f"{key}=[]: it must have a number, {each}")
    if (length := spec.metadata.get("length")) and len(numbers) != length:
        raise InputError(f"{key}={shown(numbers)}: it must be a list of {length} numbers")
    for number in numbers:
        _within(key, number, each)
    if (among := spec.metadata.get("among")) is not None and among not in numbers:
        raise InputError(f"{key}={shown(numbers)}: {among:g} must be among them")


def _check_named(place: str, value: Any, named: Mapping[str, Bounds], schema: Any) -> None:
    """A value in an open mapping: by its own name, else by the type that its class takes."""
    if value is None or (isinstance(value, str) and "${" in value):
        return
    bounds, types = named.get(place.rpartition(".")[2]), types_of(place, schema)
    if not _is_of(types, value, place, bounds):
        legal = bounds or ("a number" if "float" in types else "a whole number")
        raise InputError(f"{place}={shown(value)}: it must be {legal}{' or null' if 'None' in types else ''}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _within(place, value, bounds or (FINITE if isinstance(value, float) else INTEGER))


def _is_of(types: Collection[str], value: Any, place: str, bounds: Bounds | None) -> bool:
    """Whether ``value`` can be a number where its class, or a bound, says that it is one."""
    if isinstance(value, bool):
        return bounds is None and (not types or not {"bool", "Any"}.isdisjoint(types))
    if isinstance(value, list | Mapping):
        return not types or not NUMBERS.issuperset(types)
    if isinstance(value, str):
        trainers = bounds is not None and place.startswith("trainer.") and place not in OR_TEXT
        return not trainers and (not types or not NUMBERS.issuperset(types))
    whole = bool(types) and NUMBERS.issuperset(types) and "float" not in types
    return not (whole and isinstance(value, float))


def _within(key: str, value: Any, bounds: Bounds) -> None:
    if not bounds.allow(value):
        raise InputError(f"{key}={shown(value)}: it must be {bounds}")


def _numbers(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value below an open mapping; the items of a list go by the key of the list."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield f"{key}.{name}", value
            yield from _numbers(value, f"{key}.{name}")
    elif isinstance(tree, list):
        for value in tree:
            yield key, value
            yield from _numbers(value, key)
