"""The filters are what SciPy, OpenCV and ImageMagick define, held against their formulas written out pixel by pixel."""

import math

import numpy as np
import pytest

from kravl.data.corruptions.filters import clipped_zoom, gaussian, motion_blur, resize, sample

IMAGE = np.random.default_rng(0).random((9, 12, 3))
PAD = {"edge": "edge", "symmetric": "symmetric"}


@pytest.mark.parametrize("mode", PAD)
@pytest.mark.parametrize(("sigma", "truncate"), [(0.7, 4.0), (2.0, 3.0)])
def test_gaussian_is_a_weighted_mean_of_the_neighbours_in_the_padded_image(
    mode: str, sigma: float, truncate: float
) -> None:
    reach = int(truncate * sigma + 0.5)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    padded = np.pad(IMAGE, ((reach, reach), (reach, reach), (0, 0)), mode=mode)  # type: ignore[call-overload]
    expected = np.zeros_like(IMAGE)
    for i, vertical in enumerate(weights):
        for j, horizontal in enumerate(weights):
            expected += vertical * horizontal * padded[i : i + 9, j : j + 12] / sum(weights) ** 2

    np.testing.assert_allclose(gaussian(IMAGE, sigma, mode, truncate), expected, atol=1e-12)


def test_a_kernel_wider_than_the_image_folds_back_again_and_again() -> None:
    padded = np.pad(IMAGE, ((90, 90), (0, 0), (0, 0)), mode="symmetric")
    weights = np.exp(-(np.arange(-90, 91) ** 2) / (2 * 30.0**2))
    flat = np.ones((9, 1, 1))

    blurred = gaussian(IMAGE[:, :1], 30.0, "symmetric", truncate=3)

    expected = np.tensordot(weights, padded[4 : 4 + 181, 0], axes=1) / weights.sum()
    np.testing.assert_allclose(blurred[4, 0], expected, atol=1e-12)
    np.testing.assert_allclose(gaussian(flat, 30.0, "symmetric"), flat)


def test_resize_interpolates_between_corners_that_stay() -> None:
    large = resize(IMAGE, 17, 12)

    np.testing.assert_allclose(large[::2], IMAGE, atol=1e-12)
    np.testing.assert_allclose(large[1], (IMAGE[0] + IMAGE[1]) / 2, atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 1.3, 3])
def test_a_clipped_zoom_keeps_the_size_and_shows_the_centre(factor: float) -> None:
    zoomed = clipped_zoom(IMAGE, factor)

    assert zoomed.shape == IMAGE.shape
    assert np.array_equal(zoomed, IMAGE) == (factor == 1)
    assert zoomed.min() >= IMAGE.min()
    assert zoomed.max() <= IMAGE.max()


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


@pytest.mark.parametrize("mode", ["symmetric", "reflect"])
def test_sample_is_bilinear_in_the_image_continued(mode: str) -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(-8, 16, (9, 12)), rng.uniform(-11, 22, (9, 12))
    padded = np.pad(IMAGE, ((24, 24), (24, 24), (0, 0)), mode=mode)  # type: ignore[call-overload]
    expected = np.zeros_like(IMAGE)
    for y in range(9):
        for x in range(12):
            top, left = math.floor(rows[y, x]), math.floor(columns[y, x])
            down, right = rows[y, x] - top, columns[y, x] - left
            corner = padded[top + 24 : top + 26, left + 24 : left + 26]
            upper, lower = corner[:, 0] * (1 - right) + corner[:, 1] * right
            expected[y, x] = upper * (1 - down) + lower * down

    np.testing.assert_allclose(sample(IMAGE, rows, columns, mode), expected, atol=1e-12)
