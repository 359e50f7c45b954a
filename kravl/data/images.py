"""Read an image file as the RGB pixels that a person would see, whatever its mode, depth and orientation."""

import importlib
import os
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from kravl.runtime.errors import InputError
from kravl.runtime.files import refuse_endless
from kravl.runtime.shared import Key, file_state

MEGAPIXELS = 40  # unless a setting allows more: a 12 kB PNG can hold 100, seconds to decode and a gigabyte of memory
MOST_MEGAPIXELS = 10_000
SHOWN = 60  # characters of a value
ALLOWED = "KRAVL_MAX_MEGAPIXELS"  # in the environment, which processes that load images inherit
OF_SETTING = "KRAVL_MEGAPIXELS_OF"  # likewise: what the limit was set by, where a run's settings did
LONGEST = 500  # times the other side: with its shorter side at a model's 224 pixels, 1 x 20,000 would take 5 GB
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
EXIF_ORIENTATION = 0x0112
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # the warning, where warnings are errors
# drawings that another program renders (PostScript runs Ghostscript), containers of any format, and data without pixels
NOT_RASTER = ("EPS", "WMF", "IPTC", "MPEG", "BUFR", "GRIB", "HDF5")
COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
POSTSCRIPT_REASON = "PostScript is a program, which kravl does not run; save the picture as PNG"
HEAD = 32  # bytes that tell a format
SIGNATURES = re.compile(  # of the formats that people have, in files whose ending does not say it
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II[*+]\0|MM\0[*+]|....ftypavi[fs]"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6]\s|8BPS\0\x01|qoif",
    re.DOTALL,
)
BACKUP = re.compile(r"\.(bak|crdownload|old|orig|part|swp|te?mp)|.*(~|_original)")  # endings of copies and halves
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
DNG_VERSION, SUBFILE_TYPE, REDUCED = 50706, 254, 1  # tags of TIFF; the last says that a picture is a preview of another
HEIC = re.compile(rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
HEIC_REASON = "HEIC, as phones save photographs, needs a package: pip install pillow-heif; or save it as JPEG or PNG"
LFS = b"version https://git-lfs"
LFS_REASON = "a pointer of Git LFS, not the image; run 'git lfs pull' where it was cloned"
# what Pillow's decoders raise on damaged files, found by mutating 70,000 of 12 formats
UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, struct.error, *BOMB)


class Opener(Protocol):
    """Reads images by position; picklable, because loader workers get a copy."""

    def __call__(self, position: int) -> Image.Image:
        """The image as RGB."""

    def check(self, position: int) -> None:
        """Raise InputError with the name and the reason if the image cannot be read; may be faster than a call."""
        self(position)

    def files(self, position: int) -> Sequence[Path]:
        """The files that the image is read from; none of one that is made, or comes with a package."""
        return ()

    def identity(self, position: int) -> Key | None:
        """All that decides the image's pixels, by which runs of one process share them; None: they share nothing."""
        return None


@dataclass(frozen=True)
class FileOpener(Opener):
    """Images that are files ``names`` under the folder ``root``."""

    root: Path
    names: Sequence[str]

    def __call__(self, position: int) -> Image.Image:
        return open_rgb(self.path(position))

    def check(self, position: int) -> None:
        check_readable(self.path(position))

    def path(self, position: int) -> Path:
        return self.root / self.names[position]

    def files(self, position: int) -> Sequence[Path]:
        return (self.path(position),)

    def identity(self, position: int) -> Key | None:
        return (file := file_state(self.path(position))) and (*file, os.environ.get(ALLOWED))


@cache
def raster_formats() -> tuple[str, ...]:
    """The formats that this Pillow decodes to pixels itself, in the order to try: those without a signature last."""
    Image.init()
    if find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    legal = (name for name in Image.ID if name not in NOT_RASTER)
    return tuple(sorted(legal, key=lambda name: (name not in COMMON, Image.OPEN[name][1] is None)))


@cache
def image_endings() -> frozenset[str]:
    """What names of files in `raster_formats` end in: lower case, with the dot."""
    formats = (*raster_formats(), "MPO")  # Pillow registers MPO, several JPEGs in one file, as a JPEG to read
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


def is_image_file(path: str | Path) -> bool:
    """Whether a file is an image by its ending or, where that says nothing, by its first bytes; it may be damaged."""
    ending = Path(path).suffix.lower()
    if ending in image_endings():
        return True
    if ending in RAW:
        return False
    return not (ending in Image.registered_extensions() or BACKUP.fullmatch(ending)) and _begins_as_image(path)


def _begins_as_image(path: str | Path) -> bool:
    try:
        return SIGNATURES.match(_head(path)) is not None
    except (OSError, InputError):
        return False


def open_rgb(path: Path) -> Image.Image:
    """The image as RGB, turned upright by its EXIF orientation; see `to_rgb` for the other modes.

    Raises:
        InputError: the file is missing, damaged, no image, or larger than allowed; with path and reason.
    """
    return _read(path, _viewed, str(path))


def decode_rgb(data: bytes, name: str) -> Image.Image:
    """The image that is the bytes of a file, as `open_rgb`; ``name`` is what errors call it."""
    return _read(BytesIO(data), _viewed, name)


def check_readable(path: Path) -> None:
    """Decode the whole file, a JPEG at an eighth of its size, and discard the pixels.

    Raises:
        InputError: as `open_rgb`.
    """

    def decode(image: Image.Image) -> Image.Image:
        if image.mode == "RGB":
            # reads all of the data, but computes little from it
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return image
        return to_rgb(image)

    _read(path, decode, str(path))


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB pixels of an image in any mode.

    Grey becomes three equal channels; 16-bit values are scaled by 255/65535 and rounded, not clipped; whatever is
    transparent (RGBA, LA, palette or colour key) is put on white, as a viewer shows it; CMYK is converted by Pillow
    without a colour profile.

    Raises:
        ValueError: integers or floats of no known range.
    """
    if image.mode in SIXTEEN_BIT or image.mode == "I":
        return _scale_sixteen_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 or 16 bits per channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def allow_megapixels(most: int) -> None:
    """From now on, images of up to ``most`` megapixels are read, here and in processes that load images."""
    os.environ[ALLOWED], os.environ[OF_SETTING] = str(most), "loading.max_megapixels"


def _max_pixels() -> int:
    allowed = os.environ.get(ALLOWED, str(MEGAPIXELS))
    if not allowed.isdecimal() or not 0 < int(allowed) <= MOST_MEGAPIXELS:
        raise InputError(f"{ALLOWED}={allowed[:SHOWN]!r}: it must be a whole number from 1 to {MOST_MEGAPIXELS:,}")
    pixels = int(allowed) * 10**6
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own bound, which never was a user's word
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)
    return pixels


def _allows_more() -> str:
    """What the command at hand takes: a setting of a run, else the variable alone."""
    given = os.environ.get(OF_SETTING)
    return f"{given}=... allows more" if given else f"{ALLOWED}=... in the environment allows more"


def _read(source: Path | BytesIO, decode: Callable[[Image.Image], Image.Image], name: str) -> Image.Image:
    most = _max_pixels()
    if isinstance(source, Path):
        refuse_endless(source)
    try:
        with Image.open(source, formats=raster_formats()) as image:
            if image.width * image.height > most:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {most:,} are read ({_allows_more()})")
            if max(image.size) > LONGEST * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels: one side is over {LONGEST} times the other")
            if _is_raw(image, source, name):
                raise ValueError(RAW_REASON)
            return decode(image)
    except UNREADABLE as error:
        reason = _told_by_head(source, name) or _reason(error, most)
        raise InputError(f"cannot read {name}: {reason}") from error


def _is_raw(image: Image.Image, source: Path | BytesIO, name: str) -> bool:
    if Path(name).suffix.lower() in RAW:
        return True
    if image.format != "TIFF":  # which most of them are
        return False
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(SUBFILE_TYPE, 0) & REDUCED or DNG_VERSION in tags or CR2.match(_head(source)))


def _told_by_head(source: Path | BytesIO, name: str) -> str | None:
    """What the first bytes say of a file that cannot be read, or None."""
    try:
        head = _head(source)
    except OSError:
        return None
    if head.startswith(POSTSCRIPT):
        return POSTSCRIPT_REASON
    if head.startswith(LFS):
        return LFS_REASON
    if HEIC.match(head) and not find_spec("pillow_heif"):
        return HEIC_REASON
    return RAW_REASON if Path(name).suffix.lower() in RAW or CR2.match(head) else None


def unread_kind(path: str | Path) -> str | None:
    """What a file that is no image to kravl is, and what to do; None where that is not known."""
    if Path(path).suffix.lower() in RAW:
        return RAW_REASON
    try:
        return HEIC_REASON if HEIC.match(_head(path)) else None
    except (OSError, InputError):
        return None


def _head(source: str | Path | BytesIO) -> bytes:
    if isinstance(source, BytesIO):
        return source.getvalue()[:HEAD]
    refuse_endless(source)
    with Path(source).open("rb") as file:
        return file.read(HEAD)


def _viewed(image: Image.Image) -> Image.Image:
    return to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    # exif_transpose copies even an upright image
    upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
    return image if upright else ImageOps.exif_transpose(image)


def _scale_sixteen_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:  # Pillow reads some 16-bit files into 32-bit integers
        raise ValueError(f"32-bit pixels from {values.min()} to {values.max()}; save the image with 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _reason(error: BaseException, most: int) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or damaged beyond recognition"
    if isinstance(error, BOMB):
        return f"more than {most:,} pixels ({_allows_more()})"
    return str(error) or type(error).__name__
