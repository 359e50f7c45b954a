"""Small pictures that all differ, as files: mostly tiny JPEGs, and here and there a kind that real sets have too."""

import io
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16  # pixels
LARGE = (2048, 1536)
CHUNK = 2_000  # files a job
ORIENTATION = 0x0112  # EXIF
# every so many pictures one is of that kind; primes, so that each kind meets each set and class
LARGE_EVERY, GREY_EVERY, CMYK_EVERY, TURNED_EVERY = 4_999, 101, 103, 107


def jpeg(number: int) -> bytes:
    """Picture ``number``: blocks of colour that no other number has."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(256, size=(4, 4, 3), dtype=np.uint8))
    image = blocks.resize(LARGE if number % LARGE_EVERY == 0 else (SIDE, SIDE), Image.Resampling.NEAREST)
    options = {}
    if number % GREY_EVERY == 0:
        image = image.convert("L")
    elif number % CMYK_EVERY == 0:
        image = image.convert("CMYK")
    elif number % TURNED_EVERY == 0:
        exif = Image.Exif()
        exif[ORIENTATION] = 2 + number % 7
        options["exif"] = exif
    data = io.BytesIO()
    image.save(data, "JPEG", quality=50, optimize=True, **options)
    return data.getvalue()


def encoded(number: int, suffix: str) -> bytes:
    """Picture ``number`` as the format that goes by ``suffix``."""
    if suffix.lower() in (".jpg", ".jpeg"):
        return jpeg(number)
    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg(number))) as image:
        image.convert("RGB").save(data, {".ppm": "PPM", ".png": "PNG"}[suffix])
    return data.getvalue()


def write(root: Path, names: Iterable[str], start: int) -> int:
    """A picture at each of ``names`` below ``root``, numbered from ``start``; how many there are."""
    count = 0
    with get_context("spawn").Pool(min(4, os.cpu_count() or 1)) as pool:
        for written in pool.imap_unordered(_write, _jobs(root, names, start)):
            count += written
    return count


def _jobs(root: Path, names: Iterable[str], start: int) -> Iterator[tuple[Path, list[str], int]]:
    rest = iter(names)
    while chunk := list(islice(rest, CHUNK)):
        yield root, chunk, start
        start += len(chunk)


def _write(job: tuple[Path, list[str], int]) -> int:
    root, names, start = job
    made: set[str] = set()
    for number, name in enumerate(names, start):
        folder, _, file = name.rpartition("/")
        if folder not in made:
            (root / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        (root / name).write_bytes(encoded(number, Path(file).suffix))
    return len(names)
