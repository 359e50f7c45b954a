"""Class names as a user gives them: a CSV file of ``label,name``, one class a row."""

import csv
from pathlib import Path

from kravl.data.source import Source, refuse_control, spoken
from kravl.runtime.errors import InputError, unknown


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
    source.class_names = tuple(spoken(given.get(label, name)) for label, name in pairs)


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


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        InputError: there is no such file, or it is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
