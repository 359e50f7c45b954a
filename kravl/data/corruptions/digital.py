"""Digital: contrast and elastic transform on pixels (h, w, 3) in [0, 1], pixelation and JPEG on 8-bit images."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates

from kravl.data.corruptions.filters import Pixels, by_channel

CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# height and sigma of the displacements, largest shift of three points, in pixels; 244 is the published code's number
ELASTIC = tuple(tuple(244 * f for f in c) for c in (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
))  # fmt: skip
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)


def contrast(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Each channel drawn towards its mean."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * CONTRAST[severity - 1] + mean


def elastic_transform(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A random affine map, then smooth random displacements."""
    height_of, sigma, shift = ELASTIC[severity - 1]
    height, width = x.shape[:2]
    rows, columns = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    x = _sampled(x, *_affine(rows, columns, shift, rng), "mirror")
    right, down = (height_of * _smoothed(rng.uniform(-1, 1, (height, width)), sigma) for _ in range(2))
    return _sampled(x, rows + down, columns + right, "reflect")


def _sampled(x: Pixels, rows: Pixels, columns: Pixels, mode: str) -> Pixels:
    """Bilinear values at fractional positions (h, w) each."""
    return by_channel(x, lambda channel: map_coordinates(channel, (rows, columns), order=1, mode=mode))


def _smoothed(noise: Pixels, sigma: float) -> Pixels:
    """gaussian_filter(noise, sigma, mode="reflect", truncate=3), which takes 70 ms for the thousand taps of severity 1.

    Mirrored at its edges, noise is a sum of cosines, each of which a symmetric kernel only scales: 5 ms. Unlike a
    product of matrices the values are the same with any number of threads.
    """
    down, right = (_response(size, sigma) for size in noise.shape)
    return idctn(dctn(noise) * np.outer(down, right))


@lru_cache(maxsize=64)
def _response(size: int, sigma: float) -> Pixels:
    """By what the kernel scales each of the ``size`` cosines."""
    taps = np.arange(int(3 * sigma + 0.5) + 1)
    kernel = np.exp(-(taps**2) / (2 * sigma**2))
    kernel[1:] *= 2  # both sides
    cosines = np.cos(np.pi / size * np.outer(np.arange(size), taps))
    return (cosines * kernel).sum(axis=1) / kernel.sum()


def _affine(rows: Pixels, columns: Pixels, shift: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Where the pixels come from if three corners of the central square move by up to ``shift``."""
    height, width = rows.shape
    reach = min(height, width) // 3
    centre = np.array([width // 2, height // 2])
    before = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-shift, shift, before.shape)
    # x y 1 of the target -> x y of the origin
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    origin = columns[..., None] * back[0] + rows[..., None] * back[1] + back[2]
    return origin[..., 1], origin[..., 0]


def pixelate(image: Image.Image, severity: int) -> Image.Image:
    """Shrunk and enlarged again, both by box filters."""
    factor = PIXELATE[severity - 1]
    small = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def jpeg_compression(image: Image.Image, severity: int) -> Image.Image:
    """Through a JPEG of low quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    with Image.open(buffer) as compressed:
        return compressed.convert("RGB")
