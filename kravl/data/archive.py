"""Unpack an archive that may be hostile: everything appears in the folder at the end, or nothing does.

What an archive must not do is in archive_guard.py.
"""

import bz2
import filecmp
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from kravl.data.archive_guard import Budget, HostileError, refuse_hostile, refuse_outside
from kravl.runtime.errors import InputError, first_line

CHUNK = 2**20
ENCRYPTED = 0x1
SINGLE: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# the last one: a method of compression that zipfile lacks
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
)


def unpack(archive: Path, folder: Path) -> None:
    """The content of a zip or tar archive, or of one compressed file, into ``folder``, beside what is there.

    One process at a time may unpack into a folder.

    Raises:
        InputError: no archive, an empty, damaged or hostile one, or one with a file that is there already and differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    try:
        _extract(archive, temporary, Budget(archive, temporary))
        if not any(temporary.iterdir()):
            raise InputError(f"cannot unpack {archive}: it holds no file")
        if differing := _differing(temporary, folder):
            raise InputError(f"cannot unpack {archive}: {differing} is there already and differs; move it away")
        _move(temporary, folder)
    except (*DAMAGE, HostileError) as error:
        raise InputError(f"cannot unpack {archive}: {first_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive: Path, folder: Path, budget: Budget) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                refuse_outside(info.filename)
                budget.spend(info.file_size)  # zipfile writes no more than the stated size
                if info.flag_bits & ENCRYPTED:
                    raise HostileError(f"{info.filename!r} is encrypted")
            wanted = [info for info in zipped.infolist() if not info.filename.startswith("__MACOSX/")]
            zipped.extractall(folder, wanted)  # a link becomes a file that holds the path
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                refuse_hostile(member, folder)
                budget.spend(member.size)
                tar.extract(member, folder, filter="data")
    elif archive.suffix in SINGLE:
        with SINGLE[archive.suffix](archive, "rb") as packed, (folder / archive.stem).open("wb") as file:
            for chunk in iter(partial(packed.read, CHUNK), b""):
                budget.spend(len(chunk))
                file.write(chunk)
    else:
        raise HostileError(f"neither a zip or tar archive nor one of {', '.join(SINGLE)}")


def _differing(source: Path, target: Path) -> Path | None:
    """The first file under ``target`` that is another one than its namesake under ``source``."""
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and there.is_dir():
            if found := _differing(entry, there):
                return found
        elif os.path.lexists(there) and not (entry.is_file() and there.is_file() and filecmp.cmp(entry, there, False)):
            return there
    return None


def _move(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        there = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and there.is_dir():
            _move(entry, there)
        elif not os.path.lexists(there):
            entry.replace(there)
