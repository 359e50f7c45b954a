"""What a file is, told from its first bytes and its ending: an image, or one of the files that are taken for one."""

import re
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from kravl.runtime.errors import InputError
from kravl.runtime.files import refuse_endless

HEAD = 32  # bytes that tell a format
SIGNATURES = re.compile(  # of the formats that people have, in files whose ending does not say it
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II[*+]\0|MM\0[*+]|....ftypavi[fs]"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6]\s|8BPS\0\x01|qoif",
    re.DOTALL,
)
BACKUP = re.compile(r"\.(bak|crdownload|old|orig|part|swp|te?mp)|.*(~|_original)")  # endings of copies and halves
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
POSTSCRIPT_REASON = "PostScript is a program, which kravl does not run; save the picture as PNG"
# what a camera records before it is developed, in which Pillow finds a preview of few pixels, if anything
RAW = frozenset(
    [
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    ]
)
RAW_REASON = (
    "a raw photograph of a camera, in which Pillow finds a small preview; develop it and save it as JPEG or PNG"
)
CR2 = re.compile(rb"(II\*\0|MM\0\*)....CR", re.DOTALL)
HEIC = re.compile(rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
HEIC_REASON = "HEIC, as phones save photographs, needs a package: pip install pillow-heif; or save it as JPEG or PNG"
LFS = b"version https://git-lfs"
LFS_REASON = "a pointer of Git LFS, not the image; run 'git lfs pull' where it was cloned"


def is_file(path: str | Path) -> bool:
    """Whether it is a file; a name that is too long, or lies below a closed folder, is none that can be read."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def why_no_file(path: str | Path) -> str:
    """What to say of a path that is no file that can be read."""
    try:
        return "not a file" if Path(path).exists() else "no such file"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def head(source: str | Path | BytesIO) -> bytes:
    """The first bytes of a file. Raises OSError, and InputError for a pipe or a device."""
    if isinstance(source, BytesIO):
        return source.getvalue()[:HEAD]
    refuse_endless(source)
    with Path(source).open("rb") as file:
        return file.read(HEAD)


def begins_as_image(path: str | Path) -> bool:
    """Whether the first bytes are those of an image; not of a file that cannot be read."""
    try:
        return SIGNATURES.match(head(path)) is not None
    except (OSError, InputError):
        return False


def told_by_head(source: Path | BytesIO, name: str) -> str | None:
    """What the first bytes say of a file that cannot be read, or None."""
    try:
        first = head(source)
    except OSError:
        return None
    if first.startswith(POSTSCRIPT):
        return POSTSCRIPT_REASON
    if first.startswith(LFS):
        return LFS_REASON
    if HEIC.match(first) and not find_spec("pillow_heif"):
        return HEIC_REASON
    return RAW_REASON if Path(name).suffix.lower() in RAW or CR2.match(first) else None


def unread_kind(path: str | Path) -> str | None:
    """What a file that is no image to kravl is, and what to do; None where that is not known."""
    if Path(path).suffix.lower() in RAW:
        return RAW_REASON
    try:
        return HEIC_REASON if HEIC.match(head(path)) else None
    except (OSError, InputError):
        return None
