"""Blurs follow the published definitions."""

from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kravl.data.corruptions.blur import DEFOCUS, GLASS, ZOOM, defocus_blur, disc, glass_blur, motion_blur, zoom_blur
from kravl.data.corruptions.filters import by_channel, clipped_zoom

IMAGE = np.random.default_rng(0).random((32, 40, 3))
SEVERITIES = range(1, 6)


class Drawn:
    """A generator whose draws are given."""

    def __init__(self, shifts: np.ndarray) -> None:
        self.shifts = shifts

    def integers(self, low: int, high: int, size: tuple[int, int]) -> np.ndarray:
        assert self.shifts.shape == size
        assert self.shifts.min() >= low
        assert self.shifts.max() < high
        return self.shifts


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_the_mean_over_a_soft_disc_of_the_mirrored_image(severity: int) -> None:
    radius, sigma = DEFOCUS[severity - 1]
    kernel = disc(radius, sigma)
    reach = len(kernel) // 2
    padded = np.pad(IMAGE, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    expected = sum(
        kernel[i, j] * padded[i : i + 32, j : j + 40] for i in range(len(kernel)) for j in range(len(kernel))
    )

    np.testing.assert_allclose(defocus_blur(IMAGE, severity, np.random.default_rng(0)), expected, atol=1e-12)
    assert kernel.sum() == pytest.approx(1, abs=0.02)
    grid = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    assert np.all(kernel[grid > radius + 3] == 0)
    assert np.ptp(kernel[grid < max(1, radius - 3.5)]) < 1e-4  # flat inside; only the rim is softened


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_takes_each_pixel_from_nearby_one_after_the_other(severity: int) -> None:
    sigma, reach, repetitions = GLASS[severity - 1]
    rows, columns = range(32 - reach, reach, -1), range(40 - reach, reach, -1)
    shifts = np.random.default_rng(severity).integers(-reach, reach, size=(len(rows) * len(columns), 2))
    moved = np.floor(gaussian_filter(IMAGE, (sigma, sigma, 0), mode="nearest") * 255)
    for _ in range(repetitions):
        draws = iter(shifts)
        for row in rows:
            for column in columns:
                dx, dy = next(draws)
                moved[row, column] = moved[row + dy, column + dx]

    blurred = glass_blur(IMAGE, severity, Drawn(shifts))  # type: ignore[arg-type]

    np.testing.assert_allclose(blurred, gaussian_filter(moved / 255, (sigma, sigma, 0), mode="nearest"), atol=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_is_the_mean_of_the_image_and_its_enlargements(severity: int) -> None:
    factors = np.arange(1, *ZOOM[severity - 1])

    expected = (IMAGE + sum(by_channel(IMAGE, partial(clipped_zoom, factor=f)) for f in factors)) / (len(factors) + 1)

    np.testing.assert_allclose(zoom_blur(IMAGE, severity, np.random.default_rng(0)), expected)
    assert len(factors) == (12, 16, 11, 13, 11)[severity - 1]  # 12: 1.11 itself, by rounding, as published


def test_motion_blur_keeps_a_flat_image_and_differs_by_draw() -> None:
    first, second = (motion_blur(IMAGE, 3, np.random.default_rng(seed)) for seed in (0, 1))

    np.testing.assert_allclose(motion_blur(np.full((30, 30, 3), 0.4), 5, np.random.default_rng(0)), 0.4)
    assert not np.allclose(first, second)
