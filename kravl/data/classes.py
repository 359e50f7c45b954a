"""Class names and descriptions: a user's own, and those of an evaluation set matched with the trained ones."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kravl.data.source import Source, composed_form, is_seen, readable_name, readable_names, refuse_control
from kravl.runtime.errors import InputError, nearest, some_of, unknown
from kravl.runtime.files import csv_rows, parse_json, read_text

log = logging.getLogger(__name__)
Columns = tuple[int, ...] | tuple[tuple[int, ...], ...] | None


def name_classes(source: Source, path: str | None, descriptions: str | None = None) -> None:
    """Call the classes of ``source`` in prompts what the file says; those that it leaves out keep their names.

    Classes that share their prompts, by their names or their descriptions, are told.

    Args:
        descriptions: a file for `describe_classes`.

    Raises:
        InputError: a label that is no class of the source (the nearest is named), a name that is empty in a prompt, or
            what `read_class_list` and `describe_classes` raise.
    """
    given = {} if path is None else read_class_list(path)
    ids = [composed_form(class_id) for class_id in source.class_ids]
    for label in given:
        if label not in ids:
            raise unknown(f"label in {path}: class of {source.name}", label, source.class_ids)
    pairs = zip(ids, source.class_names, strict=True)
    source.class_names = readable_names(path or source.name, [given.get(label, name) for label, name in pairs])
    if descriptions is not None:
        describe_classes(source, descriptions)
    _tell_shared_names(source)


def _tell_shared_names(source: Source) -> None:
    groups: defaultdict[object, list[str]] = defaultdict(list)
    for i, (class_id, name) in enumerate(zip(source.class_ids, source.class_names, strict=True)):
        # descriptions stand in place of the name, in any order
        prompts = name.casefold() if source.descriptions is None else tuple(sorted(source.descriptions[i]))
        groups[prompts].append(f"{class_id!r} is {name!r}")
    kind, key = ("name, capitals aside,", "class_names")
    if source.descriptions is not None:
        kind, key = ("list of descriptions", "descriptions")
    if shared := [" and ".join(group) for group in groups.values() if len(group) > 1]:
        log.warning(
            "%s: classes of one %s have the same prompts, so that text features do not tell them apart: %s; "
            "data.%s=FILE gives them their own",
            source.name,
            kind,
            some_of(shared, 10, "; "),
            key,
        )


def read_class_list(path: str) -> dict[str, str]:
    """Label, in Unicode's NFC, -> name.

    Raises:
        InputError: no such file, one that is not UTF-8, a row that is not two fields, a label that comes twice, or what
            `csv_rows` raises.
    """
    names: dict[str, str] = {}
    for number, row in csv_rows(read_text(path), path):
        if not row:
            continue
        if len(row) != 2 or not all(field.strip() for field in row):
            raise InputError(f"{path}, line {number}: {','.join(row)[:200]!r} is not label,name")
        label, name = composed_form(row[0].strip()), row[1].strip()
        if label in names:
            raise InputError(f"{path}, line {number}: the label {label[:200]!r} is there already")
        refuse_control(f"{path}, line {number}", (label, name))
        names[label] = name
    return names


def describe_classes(source: Source, path: str) -> None:
    """Give the classes of ``source`` the sentences of the file as their prompts; their number may differ.

    The form is CuPL's (Pratt et al., ICCV 2023, arXiv:2209.03320).

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
        if not isinstance(sentence, str):
            raise InputError(f"{where}, sentence {i}: {str(sentence)[:80]!r} is not text")
        if not is_seen(sentence):
            raise InputError(f"{where}, sentence {i}: {sentence[:80]!r} is empty in a prompt")
        if "{}" in sentence:
            raise InputError(
                f"{where}, sentence {i}: {sentence[:200]!r} is a template; a description is read as it is, "
                "with the class name written in it"
            )
        refuse_control(f"{where}, sentence {i}", [sentence])
    return tuple(value)


def match_classes(source: Source, class_ids: Sequence[str]) -> Columns:
    """Positions of the set's classes among the trained ``class_ids``; None if they are all of them, in order.

    Labels of the set stay positions in its own class list: column ``positions[label]`` of the logits is the true one.
    A class that several trained ones stand for has a tuple of positions; then every class has.

    Raises:
        InputError: the set has classes that were not trained; each is named, with the nearest trained one.
    """
    position = {composed_form(class_id): i for i, class_id in enumerate(class_ids)}
    groups = tuple(tuple(map(composed_form, group)) for group in source.trained_ids())
    missing = [c for group in groups for c in group if c not in position]
    if missing:
        named = some_of([f"{c!r}, nearest {nearest(c, class_ids, 1)[0]!r}" for c in missing], 10, "; ")
        raise InputError(f"{source.name}: {len(missing)} classes are not among the trained ones: {named}")
    if any(len(group) > 1 for group in groups):
        return tuple(tuple(position[c] for c in group) for group in groups)
    positions = tuple(position[c] for (c,) in groups)
    return None if positions == tuple(range(len(class_ids))) else positions


def own_columns(sources: Mapping[str, Source]) -> dict[str, Columns]:
    """Columns for sets that are each scored among their own classes, laid side by side in the order of ``sources``."""
    columns: dict[str, Columns] = {}
    start = 0
    for name, source in sources.items():
        columns[name] = tuple(range(start, start + len(source.class_ids)))
        start += len(source.class_ids)
    return columns


def trained_columns(sources: Mapping[str, Source]) -> dict[str, Columns]:
    """`own_columns`, a class that the first of ``sources`` has by name and prompts in the column that it has there."""
    first, *_ = sources.values()
    trained = {key: column for column, key in reversed(list(enumerate(_prompted(first))))}
    chosen: dict[str, Columns] = {}
    start = 0
    for name, source in sources.items():
        keys = _prompted(source)
        chosen[name] = tuple(trained.get(key, start + i) for i, key in enumerate(keys))
        start += len(keys)
    return chosen


def _prompted(source: Source) -> list[tuple[str, object]]:
    """Each class's name, and what its prompts follow from."""
    prompts = source.descriptions or [source.prompts] * len(source.class_names)
    return list(zip(source.class_names, prompts, strict=True))
