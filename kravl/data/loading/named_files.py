"""The image files that a command line names: files, folders, patterns, and a list on standard input."""

import fnmatch
import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kravl.data.images import is_image_file
from kravl.data.inspect.file_kinds import is_file
from kravl.data.tree import find_images, is_data, is_folder, listed
from kravl.runtime.errors import InputError

log = logging.getLogger(__name__)
STDIN, ANY_DEPTH = "-", "**"
MOST_WAYS = 1000  # to one folder: n that link to one another are reached in n! ways
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
    before, parts = _divided(pattern)
    if parts:
        bases = sorted(glob.iglob(before)) if before else [""]  # noqa: PTH207 (keeps the pattern's own form)
        matches = sorted(path for base in bases if _is_base(base) for path in _below(base, parts))
        images = [match for match in matches if is_image_file(match)]
    else:
        matches = sorted(glob.iglob(pattern))  # noqa: PTH207
        images = [match for match in matches if is_file(match) and is_image_file(match)]
    return images, len(matches) - len(images)


def _divided(pattern: str) -> tuple[str, list[str]]:
    """What comes before the first ``**`` of a pattern, and its parts from there on; none where it has no ``**``."""
    parts = pattern.split("/")
    if ANY_DEPTH not in parts:
        return pattern, []
    place = parts.index(ANY_DEPTH)
    before = "/".join(parts[:place])
    after = [part for part in parts[place:] if part not in ("", ".")]
    kept = [part for i, part in enumerate(after) if part != ANY_DEPTH or after[i - 1 : i] != [ANY_DEPTH]]
    if kept[-1] == ANY_DEPTH:
        kept.append("*")
    return before or ("/" if pattern.startswith("/") else ""), kept


def _is_base(folder: str) -> bool:
    return not folder or os.path.isdir(folder)  # noqa: PTH112 (False for a name that is too long)


class _Place(NamedTuple):
    """A folder that a pattern leads to.

    Args:
        due: places in the pattern's parts that what is in the folder may stand for.
        chain: the real paths of the folder and of those above it, on the way that led here.
    """

    path: str
    real: str
    due: frozenset[int]
    chain: frozenset[str]


def _below(base: str, parts: Sequence[str]) -> Iterator[str]:
    """The files below ``base`` that fit ``parts``; a folder that cannot be listed is passed over with a warning.

    A link that leads back is followed only where the pattern names it: with any part it would go round.
    """
    real = os.path.realpath(base or ".")
    pending = [_Place(base, real, frozenset((0, 1)), frozenset((real, *map(str, Path(real).parents))))]
    ways = Counter[str]()
    while pending:
        place = pending.pop()
        try:
            entries = listed(Path(place.path or "."))
        except InputError as error:
            log.warning("%s; it is passed over", error)
            continue
        for entry in entries:
            path = os.path.join(place.path, entry.name)  # noqa: PTH118 (Path would drop a leading ./)
            if not is_folder(entry):
                if len(parts) - 1 in place.due and _fits(entry.name, parts[-1]):
                    yield path
            elif inner := _entered(place, entry, path, parts):
                ways[inner.real] += 1
                if ways[inner.real] > MOST_WAYS:
                    raise InputError(f"links below {base or '.'!r} lead to {inner.real!r} in over {MOST_WAYS:,} ways")
                pending.append(inner)


def _entered(place: _Place, entry: os.DirEntry[str], path: str, parts: Sequence[str]) -> _Place | None:
    """The folder ``entry`` of ``place``, where the pattern leads into it."""
    inner = os.path.join(place.real, entry.name)  # noqa: PTH118
    real = os.path.realpath(path) if entry.is_symlink() else inner
    due: set[int] = set()
    for i in place.due:
        if parts[i] == ANY_DEPTH:
            due.update([i] if is_data(entry.name) and real not in place.chain else [])
        elif i + 1 < len(parts) and (
            _fits(entry.name, parts[i]) if real not in place.chain else entry.name == parts[i]
        ):
            due.add(i + 1)
    due.update([i + 1 for i in due if parts[i] == ANY_DEPTH])
    return _Place(path, real, frozenset(due), place.chain | {real}) if due else None


def _fits(name: str, part: str) -> bool:
    """Whether a part of a pattern means ``name``; what is hidden or no data only if it is named, as the shell does."""
    meant = is_data(name) or not glob.has_magic(part) or part.startswith(".")
    return meant and fnmatch.fnmatchcase(name, part)


def _joined(folder: str, paths: Sequence[str]) -> list[str]:
    return [os.path.join(folder, path) for path in paths]  # noqa: PTH118 (Path would drop a leading ./)


def _lines(stdin: Iterable[bytes] | None) -> Iterator[str]:
    """The paths on ``stdin``, each as it comes; empty lines are no paths."""
    for line in stdin or ():
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield name
