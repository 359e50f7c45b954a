"""The elastic transform follows the published definition: an affine map through three points, then displacements."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kravl.data.corruptions.digital import ELASTIC, elastic_transform

IMAGE = np.random.default_rng(0).random((30, 42, 3))
REACH = 600  # pixels beyond the border, more than the largest displacement


def sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: str) -> np.ndarray:
    """Bilinear values at fractional positions of the image continued as numpy.pad does."""
    padded = np.pad(image, ((REACH, REACH), (REACH, REACH), (0, 0)), mode=mode)  # type: ignore[call-overload]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    corner = {(i, j): padded[top + REACH + i, left + REACH + j] for i in (0, 1) for j in (0, 1)}
    upper, lower = (corner[i, 0] * (1 - right) + corner[i, 1] * right for i in (0, 1))
    return upper * (1 - down) + lower * down


@pytest.mark.parametrize("severity", range(1, 6))
def test_three_points_move_and_every_pixel_is_displaced(severity: int) -> None:
    height, sigma, shift = ELASTIC[severity - 1]
    rng = np.random.default_rng(severity)
    before = np.array([[31, 25], [31, 5], [11, 5]])  # x, y: the centre (21, 15) and a third of the shorter side
    after = before + rng.uniform(-shift, shift, (3, 2))
    # the 2 x 3 matrix that takes each moved point back, from six equations
    system = np.kron(np.eye(2), np.column_stack([after, np.ones(3)]))
    back = np.linalg.solve(system, before.T.reshape(-1)).reshape(2, 3)
    y, x = np.mgrid[0:30, 0:42].astype(float)
    moved = sample(IMAGE, *(back[k, 0] * x + back[k, 1] * y + back[k, 2] for k in (1, 0)), "reflect")
    right = height * gaussian_filter(rng.uniform(-1, 1, (30, 42)), sigma, truncate=3)
    down = height * gaussian_filter(rng.uniform(-1, 1, (30, 42)), sigma, truncate=3)

    warped = elastic_transform(IMAGE, severity, np.random.default_rng(severity))

    np.testing.assert_allclose(warped, sample(moved, y + down, x + right, "symmetric"), atol=1e-9)


def test_the_constants_are_the_published_ones() -> None:
    assert ELASTIC[0] == pytest.approx((488, 170.8, 24.4))
    assert ELASTIC[4] == pytest.approx((29.28, 2.44, 4.88))
