"""What an archive must not do: leave the folder by a path or a link, make a device, or grow beyond reason."""

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

MAX_BYTES = 2**40
MAX_RATIO = 200  # unpacked to packed; deflate reaches 1032 on a bomb, and photographs hardly shrink
FLOOR = 2**24  # bytes that any archive may unpack to
MIN_MEMBER = 4096  # bytes that even an empty file takes, against archives of nothing but names


class HostileError(Exception):
    """What the archive does that it must not."""


class Budget:
    """The bytes that an archive may still unpack to."""

    def __init__(self, archive: Path, folder: Path) -> None:
        size = archive.stat().st_size
        self._limit = min(MAX_BYTES, max(FLOOR, MAX_RATIO * size), shutil.disk_usage(folder).free)
        self._left = self._limit

    def spend(self, size: int) -> None:
        """Before ``size`` bytes are written."""
        self._left -= max(size, MIN_MEMBER)
        if self._left < 0:
            raise HostileError(
                f"it holds more than {self._limit:,} bytes, the least of {MAX_RATIO} times its own size (at least "
                f"{FLOOR:,}), {MAX_BYTES:,} and what is free on the disk"
            )


def refuse_outside(name: str) -> None:
    """Raise HostileError for a member whose path is absolute or has ``..`` in it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise HostileError(f"the path {name!r} leaves the folder")


def refuse_hostile(member: tarfile.TarInfo, folder: Path) -> None:
    """Before ``member`` of a tar archive is written to ``folder``.

    tarfile's own filter refuses most of it, but links got past that in some releases of Python (CVE-2025-4517, -4330).

    Raises:
        HostileError: a path or link that leaves the folder, one that goes through a link, or a device.
    """
    refuse_outside(member.name)
    path = folder / member.name
    if path.is_symlink() or any(parent.is_symlink() for parent in path.parents if folder in parent.parents):
        raise HostileError(f"{member.name!r} is written through a link")
    if member.issym():
        # ".." is harmless only at the beginning, where no other link has been followed
        steps = PurePosixPath(member.linkname).parts
        up = next((i for i, step in enumerate(steps) if step != ".."), len(steps))
        depth = len(PurePosixPath(os.path.normpath(member.name)).parts) - 1
        if PurePosixPath(member.linkname).is_absolute() or ".." in steps[up:] or up > depth:
            raise HostileError(f"the link {member.name!r} -> {member.linkname!r} leaves the folder")
    elif member.islnk():
        refuse_outside(member.linkname)
        target = folder / member.linkname
        through = [target, *(p for p in target.parents if folder in p.parents)]
        if any(p.is_symlink() for p in through) or not target.is_file():
            raise HostileError(f"the link {member.name!r} is to no file before it")
    elif not (member.isreg() or member.isdir()):
        raise HostileError(f"{member.name!r} is a device")
