"""Weather: snow, frost, fog and brightness; pixels (h, w, 3) in [0, 1], severity 1 to 5."""

from pathlib import Path

import numpy as np
from PIL import Image

from kravl.data.corruptions.filters import Pixels, clipped_zoom, motion_blur
from kravl.data.images import open_rgb
from kravl.runtime.errors import InputError

# mean and std of the flakes, their zoom, their threshold, radius and sigma of their motion, share of the picture kept
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of image and frost
FROST_PICTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # density, how fast its detail fades with scale
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
LUMA = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)


def snow(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A whitened image under blown flakes and the same flakes turned by 180 degrees."""
    mean, std, zoom, threshold, radius, sigma, kept = SNOW[severity - 1]
    flakes = clipped_zoom(rng.normal(mean, std, x.shape[:2]), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    # the published code hands 8-bit flakes to ImageMagick and gets such back
    flakes = motion_blur(np.floor(flakes * 255), int(radius), sigma, rng.uniform(-135, -45))
    flakes = np.round(flakes)[..., None] / 255
    grey = (x @ np.array(LUMA))[..., None]
    return kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5) + flakes + np.rot90(flakes, k=2)


def frost(x: Pixels, severity: int, rng: np.random.Generator, pictures: Path | None) -> Pixels:
    """A random part of one of five photographs of frost laid over the image.

    Args:
        pictures: the folder of the photographs; one that is smaller than the image is enlarged to cover it.

    Raises:
        InputError: no folder, or one of the five is not there.
    """
    picture = frost_pictures(pictures)[int(rng.integers(len(FROST_PICTURES)))]
    height, width = x.shape[:2]
    layer = open_rgb(picture)
    factor = max(1.0, (width + 1) / layer.width, (height + 1) / layer.height)
    if factor > 1:
        larger = (round(layer.width * factor), round(layer.height * factor))
        layer = layer.resize(larger, Image.Resampling.BICUBIC)
    top, left = int(rng.integers(layer.height - height)), int(rng.integers(layer.width - width))
    part = np.asarray(layer.crop((left, top, left + width, top + height)), dtype=np.float64) / 255
    own, added = FROST[severity - 1]
    return own * x + added * part


def frost_pictures(folder: Path | None) -> list[Path]:
    """The five photographs that the published code draws from.

    Raises:
        InputError: no folder, or one of the five is not there.
    """
    missing = [name for name in FROST_PICTURES if folder is None or not (folder / name).is_file()]
    if folder is None or missing:
        raise InputError(
            f"frost needs the photographs of ImageNet-C, which are not kravl's to ship; missing in {folder}: "
            f"{', '.join(missing)}; fetch them with kravl data download frost, or leave frost out"
        )
    return [folder / name for name in FROST_PICTURES]


def fog(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A fractal cloud added, and the sum scaled back to the image's brightest value."""
    density, decay = FOG[severity - 1]
    height, width = x.shape[:2]
    cloud = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width, None]
    brightest = x.max()
    return (x + density * cloud) * brightest / (brightest + density)


def plasma(size: int, decay: float, rng: np.random.Generator) -> Pixels:
    """A height map (size, size) in [0, 1] by the diamond-square algorithm on a torus.

    Args:
        size: a power of 2.
        decay: by what the random part shrinks from a scale to the next finer one.
    """
    heights = np.zeros((size, size))
    step, wobble = size, 100.0
    while step >= 2:
        half = step // 2

        def displaced(total: Pixels, wobble: float = wobble) -> Pixels:
            return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = centres = displaced(pairs + np.roll(pairs, -1, axis=1))
        above = centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = displaced(above + corners + np.roll(corners, -1, axis=1))
        beside = centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = displaced(beside + corners + np.roll(corners, -1, axis=0))
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / max(heights.max(), np.finfo(float).tiny)


def brightness(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """An offset to V of HSV: all channels of a pixel grow in proportion, and black turns grey."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)
