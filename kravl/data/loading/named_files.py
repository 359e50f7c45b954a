"""The image files that a command line names: files, folders, patterns, and a list on standard input."""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kravl.data.images import is_image_file
from kravl.data.inspect.file_kinds import is_file
from kravl.data.tree import find_images
from kravl.runtime.errors import InputError

STDIN, ANY_DEPTH = "-", "**"
SHOWN = 300  # characters of a name


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
    if os.path.isdir(name):  # noqa: PTH112 (False for a name that is too long)
        found = find_images(Path(name))
        if not found.images:
            raise InputError(f"no images in {name!r}, which holds {len(found.others)} other files")
        return _joined(name, found.images)
    if os.path.lexists(name):
        return [name]
    if not glob.has_magic(name):
        raise InputError(f"no file or folder {name[:SHOWN]!r}")
    images, others = _matching(name)
    if not images:
        raise InputError(f"no image matches {name[:SHOWN]!r}{f'; {others} others do' if others else ''}")
    return images


def _matching(pattern: str) -> tuple[list[str], int]:
    """The images that match, sorted, and how many other files do."""
    before, recursive, after = _divided(pattern)
    if not recursive:
        matches = sorted(glob.iglob(pattern))  # noqa: PTH207 (keeps the pattern's own form)
        images = [match for match in matches if is_file(match) and is_image_file(match)]
        return images, len(matches) - len(images)
    recursed: set[str] = set()
    others = 0
    for folder in sorted(glob.iglob(before)) if before else [""]:  # noqa: PTH207
        if folder and not os.path.isdir(folder):  # noqa: PTH112
            continue
        found = find_images(Path(folder))  # links are followed once, where glob goes round those that lead back
        recursed.update(_joined(folder, [path for path in found.images if _fits(path.split("/"), after)]))
        others += sum(_fits(path.split("/"), after) for path in found.others)
    return sorted(recursed), others


def _divided(pattern: str) -> tuple[str, bool, list[str]]:
    """What comes before the first ``**`` of a pattern, whether there is one, and its parts from there on."""
    parts = pattern.split("/")
    if ANY_DEPTH not in parts:
        return pattern, False, []
    place = parts.index(ANY_DEPTH)
    before = "/".join(parts[:place])
    return before or ("/" if pattern.startswith("/") else ""), True, [part for part in parts[place:] if part]


def _fits(path: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts of a path are those of a pattern, ``**`` standing for any number of folders."""
    if not parts:
        return not path
    if parts[0] != ANY_DEPTH:
        return bool(path) and fnmatch.fnmatchcase(path[0], parts[0]) and _fits(path[1:], parts[1:])
    return not parts[1:] or any(_fits(path[i:], parts[1:]) for i in range(len(path)))


def _joined(folder: str, paths: Sequence[str]) -> list[str]:
    return [os.path.join(folder, path) for path in paths]  # noqa: PTH118 (Path would drop a leading ./)


def _lines(stdin: Iterable[bytes] | None) -> Iterator[str]:
    """The paths on ``stdin``, each as it comes; empty lines are no paths."""
    for line in stdin or ():
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
