"""Unpack an archive that may be hostile."""

import bz2
import errno
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
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kravl.runtime.errors import InputError, first_line

MAX_BYTES = 2**40
MAX_RATIO = 200  # unpacked to packed; deflate reaches 1032 on a bomb, and photographs hardly shrink
FLOOR = 2**24  # bytes that any archive may unpack to
MIN_MEMBER = 4096  # bytes charged even for an empty file, against archives of countless empty files
CHUNK = 2**20
SHOWN = 80  # characters of a name
ENCRYPTED = 0x1
SINGLE: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MAX_HEADER = 2**20  # bytes of a long name or of PAX's fields, which tarfile reads into memory whole
MAX_HEADERS = 2**22  # bytes of all headers of one member, with the map of a sparse file, likewise
MAX_DESCRIBED = 16  # headers of one member, for each of which tarfile calls itself
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
DESCRIBING = (*PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
# the last three: a method of compression that zipfile lacks, a field of PAX that is no number or no time
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
)
# the last: a map of a sparse file that ends early
DAMAGED_HEADER = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError, IndexError)  # type: ignore[attr-defined]
# what the names of members lead to, and a damaged bzip2 file; other errors are of this disk
OF_NAMES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, None)


class HostileError(Exception):
    """Why the archive is refused."""


class HeaderReader:
    """Reads the headers of one member and no more, whatever sizes they state."""

    def __init__(self, source: Any) -> None:
        self.tell = source.tell
        self.depth: int = getattr(source, "depth", 0) + 1
        self._source, self._left = source, MAX_HEADERS
        if self.depth > MAX_DESCRIBED:
            raise HostileError(f"more than {MAX_DESCRIBED} headers for one file")

    def read(self, size: int) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise HostileError(f"the headers of one file have more than {MAX_HEADERS:,} bytes, or fewer than none")
        return bytes(self._source.read(size))


class Header(tarfile.TarInfo):
    """A header of a tar archive; one that describes another, or a sparse file's, may not be a bomb itself."""

    sparse: list[tuple[int, int]] | None  # type: ignore[assignment]  # typeshed has bytes

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in DESCRIBING and header.size > MAX_HEADER:
            raise HostileError(f"a header of {header.size:,} bytes; at most {MAX_HEADER:,} are read")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "Header":
        source = tarfile.fileobj
        reader = HeaderReader(source)
        tarfile.fileobj = reader  # type: ignore[assignment]
        try:
            header = super().fromtarfile(tarfile)
        except DAMAGED_HEADER as error:
            if tarfile.offset == 0 and reader.depth == 1 and not isinstance(error, IndexError):
                raise  # no tar archive, perhaps
            raise HostileError(f"damaged header ({first_line(error)})") from error  # where tarfile would see the end
        finally:
            tarfile.fileobj = source
        if header.size < 0:
            raise HostileError(f"{header.name!r} has {header.size:,} bytes")
        if header.sparse is not None:
            header.check_map(tarfile.offset - header.offset_data)
        return header

    def check_map(self, stored: int) -> None:
        """Raise HostileError unless the parts of a sparse file follow each other within it, and are ``stored``."""
        self.sparse = [(offset, size) for offset, size in self.sparse or () if size]
        end = total = 0
        for offset, size in self.sparse:
            if offset < end or size < 0:
                raise HostileError(f"the parts of the sparse file {self.name!r} overlap or are out of order")
            end, total = offset + size, total + size
        if end > self.size or total > stored:
            raise HostileError(f"the parts of the sparse file {self.name!r} are larger than the file")


class Budget:
    """The bytes that an archive may still unpack to."""

    def __init__(self, archive: Path, folder: Path) -> None:
        size = archive.stat().st_size
        self._limit = min(MAX_BYTES, max(FLOOR, MAX_RATIO * size), shutil.disk_usage(folder).free)
        self._left = self._limit

    def spend(self, size: int) -> None:
        """Charge for ``size`` bytes that are about to be written. Raises HostileError if too few are left."""
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
    """Check ``member`` of a tar archive before it is written to ``folder``.

    tarfile's own filter refuses most of this, but links got past it in some releases of Python (CVE-2025-4517, -4330).

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
            raise HostileError(f"the link {member.name!r} points to no earlier file")
    elif not (member.isreg() or member.isdir()):
        raise HostileError(f"{member.name!r} is a device")


def unpack(archive: Path, folder: Path) -> None:
    """The content of a zip or tar archive, or of one compressed file, into ``folder``, next to its content.

    One process at a time may unpack into a folder.

    Raises:
        InputError: not an archive, an empty, damaged or hostile one, or a file of it exists already and differs.
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
            raise InputError(f"cannot unpack {archive}: {differing} exists already and differs; move it away")
        _move(temporary, folder)
    except InputError:
        raise
    except (*DAMAGE, HostileError) as error:
        raise InputError(f"cannot unpack {archive}: {first_line(error)}") from error
    except OSError as error:
        if error.errno not in OF_NAMES:
            raise
        named = f" ({Path(error.filename).name[:SHOWN]!r})" if error.filename else ""
        raise InputError(f"cannot unpack {archive}: {error.strerror or error}{named}") from error
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
            members = [info for info in zipped.infolist() if not info.filename.startswith("__MACOSX/")]
            zipped.extractall(folder, members)  # a link becomes a file that holds the path
    elif tar := _opened(archive):
        with tar:
            for member in tar:
                refuse_hostile(member, folder)
                budget.spend(member.size)
                tar.extract(member, folder, filter="data")
    elif archive.suffix in SINGLE and not archive.stem.endswith(".tar"):
        with SINGLE[archive.suffix](archive, "rb") as packed, (folder / archive.stem).open("wb") as file:
            for chunk in iter(partial(packed.read, CHUNK), b""):
                budget.spend(len(chunk))
                file.write(chunk)
    else:
        raise HostileError(f"neither a zip or tar archive nor one of {', '.join(SINGLE)}")


def _opened(archive: Path) -> tarfile.TarFile | None:
    try:
        return tarfile.open(archive, tarinfo=Header)
    except tarfile.ReadError:
        return None


def _differing(source: Path, target: Path) -> Path | None:
    """The first file under ``target`` that differs from its namesake under ``source``."""
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and there.is_dir():
            if first := _differing(entry, there):
                return first
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
