"""How large an image may be, by its bytes and by its sides: decided before its pixels are read."""

import os
from io import BytesIO
from pathlib import Path

from PIL import Image

from kravl.runtime.errors import InputError

MEGAPIXELS = 40  # unless a setting allows more: a 12 kB PNG can hold 100, seconds to decode and a gigabyte of memory
MOST_MEGAPIXELS = 10_000
SHOWN = 60  # characters of a value
ALLOWED = "KRAVL_MAX_MEGAPIXELS"  # in the environment, which processes that load images inherit
OF_SETTING = "KRAVL_MEGAPIXELS_OF"  # likewise: what the limit was set by, where a run's settings did
LONGEST = 500  # times the other side: with its shorter side at a model's 224 pixels, 1 x 20,000 would take 5 GB
PIXEL_BYTES, FLOOR_BYTES = 8, 100 * 2**20  # of a file: four channels of 16 bits, and what is written beside the pixels
# Pillow's decoders that are Python code with a step for each value: 0.4 to 3.5 s a megapixel, where its others in
# Python (SGI16, MSP) and those in C take 0.001 to 0.05 s
SLOW = frozenset(("ppm", "ppm_plain", "qoi", "dds_rgb", "xpm", "fits_gzip", "BLP1", "BLP2"))
SLOW_UNLESS_PACKED = "bmp_rle"  # with a step for each run: 0.01 s a megapixel, and 1 s where every pixel is a run
SLOWER = 10  # times as few pixels of those


def allow_megapixels(most: int) -> None:
    """From now on, images of up to ``most`` megapixels are read, here and in processes that load images."""
    os.environ[ALLOWED], os.environ[OF_SETTING] = str(most), "loading.max_megapixels"


def max_pixels() -> int:
    """How many pixels an image may have. Raises InputError for a limit that is none."""
    allowed = os.environ.get(ALLOWED, str(MEGAPIXELS))
    if not allowed.isdecimal() or not 0 < int(allowed) <= MOST_MEGAPIXELS:
        raise InputError(f"{ALLOWED}={allowed[:SHOWN]!r}: it must be a whole number from 1 to {MOST_MEGAPIXELS:,}")
    pixels = int(allowed) * 10**6
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own bound, which never was a user's word
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)
    return pixels


def allows_more(pixels: int | None = None) -> str:
    """What the command at hand takes, a setting of a run, else the variable; with the number that allows ``pixels``."""
    given = os.environ.get(OF_SETTING)
    name, where = (given, "") if given else (ALLOWED, " in the environment")
    if pixels is None:
        return f"{name}=...{where} allows more"
    needed = -(-pixels // 10**6)
    if needed > MOST_MEGAPIXELS:
        return f"{name}{where} goes up to {MOST_MEGAPIXELS:,}"
    return f"{name}={needed}{where} allows it"


def refuse_long(source: Path | BytesIO, most: int) -> int:
    """The bytes of a file. Raises ValueError for more than ``most`` pixels may have.

    A sparse file takes no disk, and all memory to read.
    """
    size, limit = len(source.getbuffer()) if isinstance(source, BytesIO) else source.stat().st_size, PIXEL_BYTES * most
    if size > limit + FLOOR_BYTES:
        needed = (size - FLOOR_BYTES) // PIXEL_BYTES + 1
        raise ValueError(f"{size:,} bytes; at most {limit + FLOOR_BYTES:,} are read ({allows_more(needed)})")
    return size


def refuse_large(image: Image.Image, most: int, size: int = 0) -> None:
    """Raise ValueError for a picture, of a file of ``size`` bytes, with sides that are not read."""
    sides, pixels = f"{image.width} x {image.height} pixels", image.width * image.height
    if pixels > most:
        raise ValueError(f"{sides}; at most {most:,} are read ({allows_more(pixels)})")
    if pixels * SLOWER > most and _is_slow(image, size):
        raise ValueError(
            f"{sides}; at most {most // SLOWER:,} are read of {image.format} of this kind, which Pillow decodes slowly "
            f"({allows_more(pixels * SLOWER)}); save it as PNG"
        )
    if not pixels:
        raise ValueError(f"{sides}: it is empty")
    if max(image.size) > LONGEST * min(image.size):
        raise ValueError(f"{sides}: one side is over {LONGEST} times the other")


def _is_slow(image: Image.Image, size: int) -> bool:
    decoders = {part[0] for part in getattr(image, "tile", ())}
    if image.mode == "1":  # black and white in PPM's plain form is translated at once
        return False
    return bool(decoders & SLOW) or (SLOW_UNLESS_PACKED in decoders and size > image.width * image.height)
