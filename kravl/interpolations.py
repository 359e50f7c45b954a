"""Which ${...} a config may use: other settings, and environment variables that name a folder."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kravl.runtime.errors import InputError

# innermost first: what is understood is replaced by a letter until nothing is left to replace
REFERENCE = re.compile(r"\$\{\s*\.*[\w.\[\]-]+\s*\}")
IMAGES = re.compile(r"\$\{\s*images\s*:[^${}]*\}")
# a variable such as SCRATCH_DIR, and never one that may hold a key
FOLDER = re.compile(
    r"\$\{\s*oc\.env\s*:\s*(?:\w*_)?(?:HOME|DIR|ROOT|PATH|DATA|SCRATCH|WORK|CACHE|TMP)\s*(?:,[^${}]*)?\}"
)
SHOWN = 80


def refuse_foreign(tree: Any, what: str) -> None:
    """Check every text of ``tree``, a config that is not resolved; ``what`` is what errors call it.

    Raises:
        InputError: an interpolation that reads anything but settings and folders, with its key.
    """
    for key, text in _texts(tree):
        left = text
        while left != (left := IMAGES.sub("x", FOLDER.sub("x", REFERENCE.sub("x", left)))):
            pass
        if "${" in left:
            raise InputError(
                f"{what}: {key or 'a value'} is {text[:SHOWN]!r}; a config may refer to its own settings and to "
                "environment variables that name a folder (…HOME, …DIR, …ROOT), such as ${oc.env:DATA_ROOT}"
            )


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of each string below ``tree``, the names of keys included."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            place = f"{key}.{name}" if key else str(name)
            yield place[:SHOWN], str(name)
            yield from _texts(value, place)
    elif isinstance(tree, list | tuple):
        for position, value in enumerate(tree):
            yield from _texts(value, f"{key}[{position}]")
