"""The labels that the caller of `kravl.fit` gave to the classes, beside the run's record."""

from pathlib import Path
from typing import Any

from kravl.data.source import refuse_control
from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, read_text

Label = str | int
LABELS = "labels.json"


def plain_label(label: Any) -> Label:
    """Text or a whole number, also where it is numpy's or torch's. Raises InputError for anything else."""
    try:
        value = label.item() if hasattr(label, "item") else label
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the label {str(label)[:80]!r} is not one value; labels are texts or whole numbers"
        ) from error
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"the label {str(value)[:80]!r} is {type(value).__name__}; labels are texts or whole numbers")
    refuse_control("labels", [value] if isinstance(value, str) else ())
    return value


def read_labels(folder: Path, classes: int) -> list[Label] | None:
    """The labels of so many ``classes`` in the run ``folder``, in their order; None where it has none.

    Raises:
        InputError: the file holds anything else.
    """
    path = folder / LABELS
    if not path.is_file():
        return None
    labels = json_object(read_text(path), str(path)).get("labels")
    if not isinstance(labels, list) or len(labels) != classes:
        raise InputError(f"{path} does not hold the labels of {classes} classes")
    try:
        return [plain_label(label) for label in labels]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
