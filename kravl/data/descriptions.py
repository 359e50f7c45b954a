"""Descriptions of classes in place of templates, in the form of CuPL (Pratt et al., ICCV 2023, arXiv:2209.03320)."""

import logging
from collections import defaultdict
from collections.abc import Mapping

from kravl.data.source import Source, readable_name, refuse_control
from kravl.runtime.errors import InputError, nearest, some_of
from kravl.runtime.files import parse_json, read_text

log = logging.getLogger(__name__)


def describe_classes(source: Source, path: str) -> None:
    """Give the classes of ``source`` the sentences of the file as their prompts; how many there are may differ.

    A class is found by its label, else by its name; those of the file that are no class are named in a line.

    Raises:
        InputError: a class without sentences, all such being named, or what `read_descriptions` raises.
    """
    sentences = read_descriptions(path)
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for key in sentences:
        by_name[readable_name(key).casefold()].append(key)
    keys: list[str] = []
    missing: list[str] = []
    for class_id, name in zip(source.class_ids, source.class_names, strict=True):
        found = [class_id] if class_id in sentences else by_name[name.casefold()]
        if len(found) > 1:
            raise InputError(f"{path}: {' and '.join(map(repr, found))} are both the class {name!r}; merge them")
        keys += found
        missing += [] if found else [f"{name!r}, nearest {nearest(name, sentences, 1)[0]!r}"]
    if missing:
        described = f"{len(missing)} of {len(source.class_ids)} classes of {source.name}"
        raise InputError(f"{path} has no descriptions of {described}: {some_of(missing, 10, '; ')}")
    if extra := [key for key in sentences if key not in set(keys)]:
        names = some_of([repr(key) for key in extra], 10)
        log.warning("%s: %d descriptions are of no class of %s: %s", path, len(extra), source.name, names)
    source.descriptions = tuple(sentences[key] for key in keys)


def read_descriptions(path: str) -> Mapping[str, tuple[str, ...]]:
    """Class -> sentences, from a JSON file.

    Raises:
        InputError: no such file, not such an object, a class that comes twice, or one whose sentences are no list of
            text; with the class and the place in its list.
    """
    content = parse_json(read_text(path), path, unique=True)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is not a JSON object of class name: list of sentences")
    return {key: _sentences(f"{path}: {key[:80]!r}", value) for key, value in content.items()}


def _sentences(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} has {str(value)[:80]!r}, not a list of sentences")
    for i, sentence in enumerate(value, start=1):
        if not isinstance(sentence, str) or not sentence.strip():
            raise InputError(f"{where}, sentence {i}: {str(sentence)[:80]!r} is not text")
        if "{}" in sentence:
            raise InputError(
                f"{where}, sentence {i}: {sentence[:200]!r} is a template; a description is read as it is, "
                "with the class name written in it"
            )
        refuse_control(f"{where}, sentence {i}", [sentence])
    return tuple(value)
