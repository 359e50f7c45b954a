"""The trackers that there are, and whether their packages are; nothing here loads one."""

import importlib.util
from collections.abc import Sequence

from kravl.runtime.errors import InputError, unknown

NONE = "none"
KINDS = (NONE, "wandb", "tensorboard", "mlflow", "trackio", "csv")
EXTRAS = ("tensorboard", "mlflow", "trackio")  # packages of that name, in extras of that name


def kinds_of(tracking: str | Sequence[str]) -> tuple[str, ...]:
    """The trackers that ``tracking`` names, one or a list; empty for none.

    Raises:
        InputError: a name that is not one of them, one given twice, none beside others, or a package that is missing.
    """
    kinds = (tracking,) if isinstance(tracking, str) else tuple(map(str, tracking))
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("tracking", kind, KINDS)
    if len(set(kinds)) < len(kinds) or (NONE in kinds and len(kinds) > 1):
        raise InputError(f"tracking=[{','.join(kinds)}]: each tracker once, and {NONE} alone")
    for kind in kinds:
        if kind in EXTRAS and importlib.util.find_spec(kind) is None:
            raise InputError(f"tracking={kind} needs the package {kind}: pip install 'kravl[{kind}]'")
    return tuple(kind for kind in kinds if kind != NONE)
