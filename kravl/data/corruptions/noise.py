"""Noise: Gaussian, shot (Poisson) and impulse (salt and pepper); pixels (h, w, 3) in [0, 1], severity 1 to 5."""

import numpy as np

from kravl.data.corruptions.filters import Pixels

GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
PHOTONS = (60, 25, 12, 5, 3)
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)


def gaussian_noise(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """x + N(0, std²), independent for each value."""
    return x + rng.normal(scale=GAUSSIAN_STD[severity - 1], size=x.shape)


def shot_noise(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Poisson(n x) / n for n photons at full intensity."""
    photons = PHOTONS[severity - 1]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A share of the values becomes 0 or 1, each half of the time."""
    hit = rng.random(x.shape) < IMPULSE_SHARE[severity - 1]
    return np.where(hit, rng.random(x.shape) < 0.5, x)
