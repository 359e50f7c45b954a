"""Read an image file as the RGB pixels that a person would see, whatever its mode, depth and orientation."""

import importlib
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, TiffTags

from kravl.data.inspect.file_kinds import BACKUP, CR2, RAW, RAW_REASON, begins_as_image, head, told_by_head
from kravl.data.inspect.limits import ALLOWED, allows_more, max_pixels, refuse_large, refuse_long
from kravl.runtime.errors import InputError
from kravl.runtime.files import refuse_endless
from kravl.runtime.shared import Key, file_state

SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
EXIF_ORIENTATION = 0x0112
TURNS = {  # of EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED_BY = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
DNG_VERSION, SUBFILE_TYPE, REDUCED = 50706, 254, 1  # tags of TIFF; the last says that a picture is a preview of another
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # the warning, where warnings are errors
# drawings that another program renders (PostScript runs Ghostscript), containers of any format, and data without pixels
NOT_RASTER = ("EPS", "WMF", "IPTC", "MPEG", "BUFR", "GRIB", "HDF5")
COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# what Pillow's decoders raise on damaged files, found by mutating 70,000 of 12 formats
UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, struct.error, *BOMB)
ODD_TAGS = (*UNREADABLE, TypeError, KeyError, IndexError, OverflowError, AttributeError)


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
    return not (ending in Image.registered_extensions() or BACKUP.fullmatch(ending)) and begins_as_image(path)


def open_rgb(path: Path) -> Image.Image:
    """The image as RGB, turned upright by its EXIF orientation; see `to_rgb` for the other modes.

    Raises:
        InputError: the file is missing, damaged, no image, or larger than allowed; with path and reason.
    """
    return _read(path, _viewed, str(path))


def decode_rgb(data: bytes, name: str) -> Image.Image:
    """The image that is the bytes of a file, as `open_rgb`; ``name`` is what errors call it."""
    return _read(BytesIO(data), _viewed, name)


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A picture of Pillow as RGB; ``name`` is what errors call it.

    What `PIL.Image.open` returned is still its file's own picture, often not read yet, and is turned upright as
    `open_rgb` does. What was made of it (``rotate``, ``transpose``, ``convert``, ``crop``) keeps the file's EXIF,
    which may hold no more, and is taken as its pixels are. So is a TIFF whose pixels were loaded before.
    """
    most = max_pixels()
    try:
        refuse_large(image, max(most, image.width * image.height))  # who opened it has chosen its size
        return _viewed(image)
    except UNREADABLE as error:
        raise InputError(f"cannot read {name}: {_reason(error, most)}") from error


def check_readable(path: Path) -> None:
    """Decode the whole file, a JPEG at an eighth of its size, and discard the pixels.

    Raises:
        InputError: as `open_rgb`.
    """

    def decode(image: Image.Image) -> Image.Image:
        if image.mode == "RGB":
            # reads all of the data, but computes little from it
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        _load(image)
        return image if image.mode == "RGB" else to_rgb(image)

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


def _read(source: Path | BytesIO, decode: Callable[[Image.Image], Image.Image], name: str) -> Image.Image:
    most = max_pixels()
    if isinstance(source, Path):
        refuse_endless(source)
    try:
        size = refuse_long(source, most)
        with (  # not opened by its name, under which Pillow would map it: a file cut off meanwhile ends the process
            source.open("rb") if isinstance(source, Path) else nullcontext(source) as file,
            Image.open(file, formats=raster_formats()) as image,
        ):
            refuse_large(image, most, size)
            if _is_raw(image, source, name):
                raise ValueError(RAW_REASON)
            return decode(image)
    except UNREADABLE as error:
        reason = told_by_head(source, name) or _reason(error, most)
        raise InputError(f"cannot read {name}: {reason}") from error


def _is_raw(image: Image.Image, source: Path | BytesIO, name: str) -> bool:
    if Path(name).suffix.lower() in RAW:
        return True
    if image.format != "TIFF":  # which most of them are
        return False
    tags = getattr(image, "tag_v2", {})
    kind = tags.get(SUBFILE_TYPE, 0)  # of any type that the file says
    reduced = isinstance(kind, int) and bool(kind & REDUCED)
    return reduced or DNG_VERSION in tags or CR2.match(head(source)) is not None


def _viewed(image: Image.Image) -> Image.Image:
    return to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    _load(image)  # which turns a TIFF, and reads what a PNG says behind its pixels
    if not isinstance(image, ImageFile.ImageFile):
        return image
    try:
        turn = TURNS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except ODD_TAGS:  # a viewer shows it as it is
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)  # exif_transpose writes all tags anew, at which odd ones stop it
    for said in ORIENTED_BY:
        turned.info.pop(said, None)  # or it would be turned again
    return turned


def _load(image: Image.Image) -> None:
    """Decode the pixels, whatever odd tags there are beside them. Raises UNREADABLE alone."""
    if getattr(image, "tile", ()) and getattr(image, "fp", None) is None:
        raise ValueError("its file was closed before its pixels were loaded")
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
            _load_tiff(image)
        image.load()
    except UNREADABLE:
        raise
    except ODD_TAGS as error:
        raise ValueError(f"damaged, or with tags that cannot be read ({type(error).__name__}: {error})") from error


def _load_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Without the tags that stop Pillow, and without its map of a file, which has the sides swapped where it turns."""
    if not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]
    tags = image.getexif()
    for key in TiffTags.TAGS_V2_GROUPS:
        try:
            if key in tags:
                tags.get_ifd(key)
        except ODD_TAGS:
            del tags[key]
    name, image.filename = image.filename, ""  # by which it would be mapped
    try:
        image.load()
    finally:
        image.filename = name


def _scale_sixteen_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:  # Pillow reads some 16-bit files into 32-bit integers
        raise ValueError(f"32-bit pixels from {values.min()} to {values.max()}; save the image with 8 or 16 bits")
    scaled = (values * 255 + 32767) // 65535
    if isinstance(key := image.info.get("transparency"), int):  # a colour key
        scaled[values == key] = 255
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _reason(error: BaseException, most: int) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or damaged beyond recognition"
    if isinstance(error, BOMB):
        return f"more than {most:,} pixels ({allows_more()})"
    return str(error) or type(error).__name__
