"""The image files that a command line names: files, folders, patterns, and a list on standard input."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kravl.data.images import is_image_file
from kravl.data.tree import find_images
from kravl.runtime.errors import InputError

STDIN = "-"


class NamedFiles:
    """Paths in the order of the command line; those of folders and patterns are images by ending or first bytes.

    Args:
        names: files, folders (searched at any depth), patterns such as ``photos/**/*.jpg``, and ``-`` for a file a line
            on ``stdin``.

    Raises:
        InputError: a name that is nothing, a folder or a pattern without images, or ``-`` twice.
    """

    def __init__(self, names: Sequence[str], stdin: BinaryIO | None = None) -> None:
        if not names:
            raise InputError("no images are named; give files, folders, patterns, or - for a list on standard input")
        if list(names).count(STDIN) > 1:
            raise InputError("- is given twice; standard input can be read once")
        self._stdin = stdin
        self._found = [None if name == STDIN else _found(name) for name in names]

    @property
    def total(self) -> int | None:
        """How many they are; None where they come on standard input."""
        counts = [None if found is None else len(found) for found in self._found]
        return None if None in counts else sum(count for count in counts if count is not None)

    def __iter__(self) -> Iterator[str]:
        for found in self._found:
            yield from _lines(self._stdin) if found is None else found


def _found(name: str) -> list[str]:
    if not name.strip():  # a variable of the shell that is not set: it would be the working folder
        raise InputError("the name of an image is empty; . is the folder that you are in")
    path = Path(name)
    if path.is_dir():
        found = find_images(path)
        if not found.images:
            raise InputError(f"no images in {name!r}, which holds {len(found.others)} other files")
        return [os.path.join(name, image) for image in found.images]  # noqa: PTH118 (Path would drop a leading ./)
    if os.path.lexists(name):
        return [name]
    if not glob.has_magic(name):
        raise InputError(f"no file or folder {name!r}")
    matches = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 (keeps the pattern's own form)
    images = [match for match in matches if Path(match).is_file() and is_image_file(match)]
    if not images:
        raise InputError(f"no image matches {name!r}{f'; {len(matches)} others do' if matches else ''}")
    return images


def _lines(stdin: Iterable[bytes] | None) -> Iterator[str]:
    """The paths on ``stdin``, each as it comes; empty lines are no paths."""
    for line in stdin or ():
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
