"""Class names: a user's own, and those of an evaluation set matched with the trained ones."""

import csv
from collections.abc import Mapping, Sequence

from kravl.data.source import Source, readable_name, refuse_control
from kravl.runtime.errors import InputError, nearest, some_of, unknown
from kravl.runtime.files import read_text

Columns = tuple[int, ...] | tuple[tuple[int, ...], ...] | None


def name_classes(source: Source, path: str | None) -> None:
    """Call the classes of ``source`` in prompts what the file says; those that it leaves out keep their names.

    Raises:
        InputError: a label that is no class of the source (the nearest is named), or what `read_class_list` raises.
    """
    given = {} if path is None else read_class_list(path)
    for label in given:
        if label not in source.class_ids:
            raise unknown(f"label in {path}: class of {source.name}", label, source.class_ids)
    pairs = zip(source.class_ids, source.class_names, strict=True)
    source.class_names = tuple(readable_name(given.get(label, name)) for label, name in pairs)


def read_class_list(path: str) -> dict[str, str]:
    """Label -> name.

    Raises:
        InputError: no such file, one that is not UTF-8, a row that is not two fields, or a label that comes twice.
    """
    names: dict[str, str] = {}
    for number, row in enumerate(csv.reader(read_text(path).splitlines(), skipinitialspace=True), start=1):
        if not row:
            continue
        if len(row) != 2 or not all(field.strip() for field in row):
            raise InputError(f"{path}, line {number}: {','.join(row)[:200]!r} is not label,name")
        label, name = (field.strip() for field in row)
        if label in names:
            raise InputError(f"{path}, line {number}: the label {label[:200]!r} is there already")
        refuse_control(f"{path}, line {number}", (label, name))
        names[label] = name
    return names


def match_classes(source: Source, class_ids: Sequence[str]) -> Columns:
    """Positions of the set's classes among the trained ``class_ids``; None if they are all of them, in order.

    Labels of the set stay positions in its own class list: column ``positions[label]`` of the logits is the true one.
    A class that several trained ones stand for has a tuple of positions; then every class has.

    Raises:
        InputError: the set has classes that were not trained; each is named, with the nearest trained one.
    """
    position = {class_id: i for i, class_id in enumerate(class_ids)}
    groups = source.trained_ids()
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
