"""Resized images that are no longer what was written, in a file of the right length: never used."""

import random
from pathlib import Path

import numpy as np
from faults.campaign import Outcome, Row
from PIL import Image

from kravl.data.images import FileOpener
from kravl.data.loading.cache import check_images
from kravl.data.loading.pixel_cache import damaged_files, pixel_file, writing
from kravl.data.loading.transforms import CentreCrop
from kravl.data.source import Samples

IMAGES, SIDE = 24, 64
CROP = CentreCrop(SIDE, SIDE, "bicubic")


def damaged(count: int, folder: Path) -> Outcome:
    """``count`` mutations of a kept file: bits, zeroed and exchanged pieces, images in another's place."""
    rng, failures = random.Random(0), []
    names = tuple(f"{i}.png" for i in range(IMAGES))
    for name in names:
        Image.frombytes("RGB", (SIDE + 8, SIDE), rng.randbytes((SIDE + 8) * SIDE * 3)).save(folder / name)
    samples = Samples(names, (0,) * IMAGES, FileOpener(folder, names))
    expected = [CROP(samples.image(i)).transpose(2, 0, 1) for i in range(IMAGES)]
    root = folder / "cache"
    for i in range(count):
        with writing(str(root), {"test": samples}, CROP) as checked:
            check_images(checked)
        file = pixel_file(str(root), samples, CROP)
        assert file is not None
        size = 3 * SIDE * SIDE
        whole = file.path.read_bytes()
        content, start = bytearray(whole), len(whole) - IMAGES * size
        _mutate(content, start, size, i, rng)
        file.path.write_bytes(content)
        noticed = any(damaged_files(root, [samples])) or content == whole
        opened = file.open()
        if not noticed or (opened and any(not np.array_equal(file[j], expected[j]) for j in range(IMAGES))):
            failures.append(f"{i}: {'used' if noticed else 'not told'}")
    return Outcome(count, f"{count} mutations, {len(failures)} used or untold", failures)


def _mutate(content: bytearray, start: int, size: int, i: int, rng: random.Random) -> None:
    place = rng.randrange(start, len(content) - 5000)
    match i % 5:
        case 0:
            content[rng.randrange(start, len(content))] ^= 1 << rng.randrange(8)
        case 1:
            content[-1000:] = bytes(1000)
        case 2:
            content[place : place + 4096] = bytes(4096)
        case 3:  # two images exchanged
            a, b = (start + j * size for j in rng.sample(range(IMAGES), 2))
            content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
        case 4:  # a page of another place
            other = rng.randrange(start, len(content) - 5000)
            content[place : place + 4096] = content[other : other + 4096]


GATE = "100 % told by kravl data verify, 0 used"
ROW = Row(28, "kept pixels flipped, zeroed, or in another's place", GATE, 200, 10, damaged)
