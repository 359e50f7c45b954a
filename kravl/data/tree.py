"""What lies in folders that people keep: images at any depth, and what no data set means by a folder or a file."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kravl.data.images import image_endings, is_image_file
from kravl.data.inspect.file_kinds import unread_kind
from kravl.data.source import composed_form
from kravl.runtime.errors import InputError, some_of

logger = logging.getLogger(__name__)

# folders and files of macOS, Windows, NAS systems and Python, in lower case; hidden ones begin with a dot
NOT_DATA = frozenset(
    [
        *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost+found", "__pycache__"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    ]
)
UP = "a link to a folder above it"
FEW = 5  # names in a line of the log


class Found(NamedTuple):
    """What lies below a folder: paths relative to it, with ``/``, sorted by their folder and then by name."""

    images: list[str]
    others: list[str]
    passed: list[str]  # folders that are not looked into
    linked: bool  # whether any of it is reached through a link


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may belong to a data set."""
    return not name.startswith(".") and name.lower() not in NOT_DATA


def subfolders(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders in ``folder`` that may be data, and of the others, each sorted.

    Raises:
        InputError: the folder cannot be listed; with the reason.
    """
    entries = [entry for entry in listed(folder) if is_folder(entry)]
    up = {entry.name for entry in entries if _leads_up(entry, [folder])}
    names = sorted((entry.name for entry in entries), key=composed_form)
    kept = [name for name in names if is_data(name) and name not in up]
    return kept, [f"{name} ({UP})" if name in up else name for name in names if not is_data(name) or name in up]


def files_in(folder: Path) -> list[str]:
    """Names of the files in ``folder`` that may be data, sorted. Raises InputError as `subfolders`."""
    return sorted(entry.name for entry in listed(folder) if is_data(entry.name) and not is_folder(entry))


def holds_files(folder: Path) -> bool:
    """Whether any file that may be data lies below ``folder``. Raises InputError as `subfolders`."""
    return any(is_data(PurePosixPath(path).name) for path in _walk(folder, [], []))


def find_images(folder: Path) -> Found:
    """The images below ``folder`` at any depth, in the order of torchvision's ImageFolder but for Unicode's forms.

    Links are followed, but not to a folder above them; a folder that is reached twice is looked into once.

    Raises:
        InputError: a folder cannot be listed; with the reason.
    """
    passed: list[str] = []
    links: list[str] = []
    images: list[str] = []
    others: list[str] = []
    for path in sorted(_walk(folder, passed, links), key=_by_folder):
        name = PurePosixPath(path).name
        if not is_data(name):
            if not name.startswith("._") and PurePosixPath(name).suffix.lower() in image_endings():
                others.append(path)  # a hidden picture, other than the shadow that macOS keeps of each file
        else:
            (images if is_image_file(folder / path) else others).append(path)
    return Found(images, others, passed, bool(links) or folder.is_symlink())


def say_left_out(root: Path, others: Iterable[str], passed: Iterable[str]) -> None:
    """A line of the log for the files that are no images, and one for the folders that were passed over."""
    if files := list(others):
        kinds = Counter(PurePosixPath(file).suffix.lower() or "without an ending" for file in files)
        listed = some_of([f"{count} {kind}" for kind, count in kinds.most_common()], FEW)
        example = f"{files[0]}{why_no_image(root, files)}"
        logger.warning("%s: %d files are left out as no images (%s), e.g. %s", root, len(files), listed, example)
    if folders := list(passed):
        logger.warning("%s: %d folders are passed over: %s", root, len(folders), some_of(folders, FEW))


def why_no_image(root: Path, files: Iterable[str]) -> str:
    """`unread_kind` of the first of the ``files`` for which it is known, to end a line with."""
    kinds = ((file, unread_kind(root / file)) for file in files)
    return next((f"; {file} is {kind}" for file, kind in kinds if kind), "")


def refuse_without_images(root: Path, folders: Sequence[str], files: Iterable[str]) -> None:
    """Raise InputError for class ``folders`` that hold files, which are among ``files``, and no image."""
    reason = why_no_image(root, (file for file in files if file.partition("/")[0] in folders))
    raise InputError(f"{root}: {len(folders)} class folders hold files but no image: {some_of(folders)}{reason}")


def _by_folder(path: str) -> tuple[str, str]:
    folder, _, name = composed_form(path).rpartition("/")
    return folder, name


def _walk(top: Path, passed: list[str], links: list[str]) -> Iterator[str]:
    """Relative paths of the files below ``top``, the hidden ones too.

    Folders that are not looked into go to ``passed``, and links of either kind to ``links``.
    """
    seen = {os.path.realpath(top)}
    pending = [""]
    while pending:
        place = pending.pop(0)
        for entry in listed(top / place):
            path = f"{place}/{entry.name}" if place else entry.name
            if entry.is_symlink():
                links.append(path)
            # a folder that is called like an image is told when it is read
            if not is_folder(entry) or PurePosixPath(entry.name).suffix.lower() in image_endings():
                yield path
            elif not is_data(entry.name) or (real := os.path.realpath(entry.path)) in seen:
                passed.append(path)
            elif _leads_up(entry, [top / place, top, top.parent]):
                passed.append(f"{path} ({UP})")
            else:
                seen.add(real)
                pending.append(path)


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """All that is in ``folder``, sorted by name. Raises InputError as `subfolders`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: composed_form(entry.name))
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror}") from error


def _leads_up(entry: os.DirEntry[str], places: Iterable[Path]) -> bool:
    """Whether it is a link to one of the folders ``places`` or to one above: all of the set would lie below it."""
    if not entry.is_symlink():
        return False
    real = Path(os.path.realpath(entry.path))
    return any(Path(os.path.realpath(place)).is_relative_to(real) for place in places)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
