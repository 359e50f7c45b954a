"""The filters are what their authors define, held against formulas written out pixel by pixel."""

import math
from functools import partial

import numpy as np
import pytest

from kravl.data.corruptions.filters import by_channel, clipped_zoom, motion_blur

IMAGE = np.random.default_rng(0).random((9, 12, 3))


@pytest.mark.parametrize("factor", [1.0, 1.3, 3])
def test_a_clipped_zoom_keeps_the_size_and_shows_the_centre(factor: float) -> None:
    zoomed = by_channel(IMAGE, partial(clipped_zoom, factor=factor))

    assert zoomed.shape == IMAGE.shape
    assert np.array_equal(zoomed, IMAGE) == (factor == 1)
    assert zoomed.min() >= IMAGE.min()
    assert zoomed.max() <= IMAGE.max()


def test_an_enlargement_interpolates_between_corners_that_stay() -> None:
    crop = IMAGE[2:7, 2:9, 0]  # enlarged to 9 x 13
    expected = np.zeros((9, 12))
    for y in range(9):
        for x in range(12):
            top, left = min(y // 2, 3), min(x // 2, 5)
            down, right = y / 2 - top, x / 2 - left
            upper, lower = crop[top : top + 2, left] * (1 - right) + crop[top : top + 2, left + 1] * right
            expected[y, x] = upper * (1 - down) + lower * down

    np.testing.assert_allclose(clipped_zoom(IMAGE[..., 0], 1.8), expected, atol=1e-12)


@pytest.mark.parametrize(("angle", "step"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, None)])
def test_motion_blur_gathers_along_its_line(angle: float, step: tuple[int, int] | None) -> None:
    weights = np.exp(-(np.arange(7) ** 2) / (2 * 2.0**2))
    weights /= weights.sum()
    expected = np.zeros_like(IMAGE)
    for i, weight in enumerate(weights):
        dy, dx = (i * step[0], i * step[1]) if step else (math.ceil(i * math.sqrt(0.5) - 0.5),) * 2
        for y in range(9):
            for x in range(12):
                expected[y, x] += weight * IMAGE[min(max(y + dy, 0), 8), min(max(x + dx, 0), 11)]

    np.testing.assert_allclose(motion_blur(IMAGE, 3, 2.0, angle), expected, atol=1e-12)
