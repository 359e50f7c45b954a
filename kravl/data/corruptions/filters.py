"""Linear filters and resampling that the corruptions share, as they are defined in SciPy, OpenCV and ImageMagick.

Images are (h, w, c) or (h, w) float64.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float64]


def gaussian(image: Pixels, sigma: float, mode: str = "edge", truncate: float = 4.0) -> Pixels:
    """Gaussian smoothing of both axes with a kernel cut at ``truncate`` sigma.

    Args:
        sigma: in pixels.
        mode: how numpy.pad continues the image: ``edge``, or ``symmetric`` (SciPy calls them nearest and reflect).
    """
    rows, columns = (_smoothing(size, sigma, mode, truncate) for size in image.shape[:2])
    return _separable(image, rows, columns)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Linear interpolation to (height, width); corner pixels stay corner pixels, as in scipy.ndimage.zoom."""
    return _separable(image, _interpolation(image.shape[0], height), _interpolation(image.shape[1], width))


def clipped_zoom(image: Pixels, factor: float) -> Pixels:
    """The centre of the image enlarged by ``factor`` to the image's own size."""
    height, width = image.shape[:2]
    inner = [math.ceil(size / factor) for size in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    crop = image[top : top + inner[0], left : left + inner[1]]
    large = resize(crop, round(inner[0] * factor), round(inner[1] * factor))
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def motion_blur(image: Pixels, radius: int, sigma: float, angle: float) -> Pixels:
    """ImageMagick's: a one-sided Gaussian of 2 ``radius`` + 1 samples along a line, edges repeated.

    Args:
        sigma: in samples.
        angle: of the line, in degrees; 0 is to the right.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down = np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
    height, width = image.shape[:2]
    blurred = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, right, strict=True):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        blurred += weight * image[rows][:, columns]
    return blurred


def sample(image: Pixels, rows: Pixels, columns: Pixels, mode: str) -> Pixels:
    """Bilinear values at fractional positions (h, w) each.

    Args:
        mode: how the image goes on outside: ``symmetric`` (edge pixels twice) or ``reflect`` (edge pixels once).
    """
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    y = [_inside(top.astype(int) + i, image.shape[0], mode) for i in (0, 1)]
    x = [_inside(left.astype(int) + i, image.shape[1], mode) for i in (0, 1)]
    upper = image[y[0], x[0]] * (1 - right) + image[y[0], x[1]] * right
    lower = image[y[1], x[0]] * (1 - right) + image[y[1], x[1]] * right
    return upper * (1 - down) + lower * down


def _separable(image: Pixels, rows: Pixels, columns: Pixels) -> Pixels:
    # as matrices: exact at the borders, and a kernel of a thousand taps costs no more than one of three
    tall = np.tensordot(rows, image, axes=(1, 0))
    return np.moveaxis(np.tensordot(columns, tall, axes=(1, 1)), 0, 1)


@lru_cache(maxsize=64)
def _smoothing(size: int, sigma: float, mode: str, truncate: float) -> Pixels:
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    matrix = np.zeros((size, size))
    for i in range(size):
        np.add.at(matrix[i], _inside(i + offsets, size, mode), kernel)
    return matrix


@lru_cache(maxsize=256)
def _interpolation(size: int, target: int) -> Pixels:
    positions = np.linspace(0, size - 1, target)
    left = np.minimum(positions.astype(int), max(0, size - 2))
    matrix = np.zeros((target, size))
    matrix[np.arange(target), left] = 1 - (positions - left)
    matrix[np.arange(target), np.minimum(left + 1, size - 1)] += positions - left
    return matrix


def _inside(indices: NDArray[np.int_], size: int, mode: str) -> NDArray[np.int_]:
    if mode == "edge" or size == 1:
        return np.clip(indices, 0, size - 1)
    period = 2 * size if mode == "symmetric" else 2 * size - 2
    folded = indices % period
    last = period - 1 if mode == "symmetric" else period
    return np.where(folded < size, folded, last - folded)
