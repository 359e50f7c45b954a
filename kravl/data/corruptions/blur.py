"""Blur: defocus, frosted glass, motion and zoom; pixels (h, w, 3) in [0, 1], severity 1 to 5."""

from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from kravl.data.corruptions.filters import Pixels, by_channel, clipped_zoom
from kravl.data.corruptions.filters import motion_blur as directional_blur

DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius of the disc, sigma that softens it
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, largest shift, repetitions
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end (excluded) and step, from 1


def defocus_blur(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Correlation with a soft disc; the image goes on mirrored, its edge pixels once."""
    kernel = disc(*DEFOCUS[severity - 1])
    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    size = padded.shape[:2]
    # the disc is symmetric, so that its correlation is its convolution: a product of spectra
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, size)[..., None]
    return np.fft.irfft2(spectrum, size, axes=(0, 1))[2 * reach :, 2 * reach :]


def disc(radius: int, sigma: float) -> Pixels:
    """Weights (17, 17) or, for a radius above 8, (2 radius + 1, 2 radius + 1).

    They sum to 1 or, as published, to 1.01: a disc that touches the border is softened with its mirror image.
    """
    reach = max(8, radius)
    grid = np.arange(-reach, reach + 1)
    inside = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(np.float64)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    soft = np.exp(-(taps**2) / (2 * sigma**2))
    soft /= soft.sum()
    padded = np.pad(inside / inside.sum(), len(taps) // 2, mode="reflect")
    for axis in (0, 1):
        padded = np.apply_along_axis(np.convolve, axis, padded, soft, "valid")
    return padded


def glass_blur(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Gaussian blur, then pixels from a random place nearby, one after the other, then the blur again."""
    sigma, reach, repetitions = GLASS[severity - 1]
    height, width = x.shape[:2]
    blur = partial(gaussian_filter, sigma=sigma, mode="nearest", axes=(0, 1))
    blurred = np.floor(np.clip(blur(x), 0, 1) * 255)  # the published code goes through 8 bits here
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    origin = list(range(height * width))
    for _ in range(repetitions):
        shifts = rng.integers(-reach, reach, size=(len(rows) * len(columns), 2))
        steps = (shifts[:, 1] * width + shifts[:, 0]).tolist()
        places = (row * width + column for row in rows for column in columns)
        for place, step in zip(places, steps, strict=True):
            # meant as a swap, but the published code copies: its two sides are views of one array
            origin[place] = origin[place + step]
    moved = blurred.reshape(-1, 3)[origin].reshape(x.shape)
    return blur(moved / 255)


def motion_blur(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """ImageMagick's motion blur at a random angle between -45 and 45 degrees."""
    radius, sigma = MOTION[severity - 1]
    return directional_blur(x, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """The mean of the image and its enlargements."""
    end, step = ZOOM[severity - 1]
    factors = np.arange(1, end, step)
    enlarged = (by_channel(x, partial(clipped_zoom, factor=factor)) for factor in factors)
    return (x + sum(enlarged)) / (len(factors) + 1)
