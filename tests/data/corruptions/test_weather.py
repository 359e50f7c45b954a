"""Snow, frost and fog follow the published definitions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.corruptions.filters import clipped_zoom, motion_blur
from kravl.data.corruptions.weather import FOG, FROST, FROST_PICTURES, SNOW, fog, frost, plasma, snow
from kravl.runtime.errors import InputError

IMAGE = np.random.default_rng(0).random((32, 40, 3))
SEVERITIES = range(1, 6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_adds_a_cloud_and_scales_back_to_the_brightest_value(severity: int) -> None:
    density, decay = FOG[severity - 1]
    cloud = plasma(64, decay, np.random.default_rng(3))[:32, :40, None]

    foggy = fog(IMAGE, severity, np.random.default_rng(3))

    np.testing.assert_allclose(foggy, (IMAGE + density * cloud) * IMAGE.max() / (IMAGE.max() + density))


def test_plasma_is_displaced_means_of_corners_then_of_edges_on_a_torus() -> None:
    rng, wobble = np.random.default_rng(5), 100.0
    heights = np.zeros((8, 8))
    for step in (8, 4, 2):
        half, cells = step // 2, range(0, 8, step)
        draws = [rng.uniform(-wobble, wobble, (len(cells),) * 2) for _ in range(3)]
        for i, y in enumerate(cells):
            for j, x in enumerate(cells):
                around = [heights[(y + a) % 8, (x + b) % 8] for a in (0, step) for b in (0, step)]
                heights[y + half, x + half] = sum(around) / 4 + wobble * draws[0][i, j]
        for k, (a, b) in enumerate([(0, half), (half, 0)], start=1):
            for i, y in enumerate(cells):
                for j, x in enumerate(cells):
                    centre = y + a, x + b
                    around = [heights[(centre[0] + p) % 8, (centre[1] + q) % 8]
                              for p, q in ((half, 0), (-half, 0), (0, half), (0, -half))]  # fmt: skip
                    heights[centre] = sum(around) / 4 + wobble * draws[k][i, j]
        wobble /= 1.7
    heights -= heights.min()

    np.testing.assert_allclose(plasma(8, 1.7, np.random.default_rng(5)), heights / heights.max())


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_is_blown_flakes_twice_over_a_whitened_image(severity: int) -> None:
    mean, std, zoom, threshold, radius, sigma, kept = SNOW[severity - 1]
    rng = np.random.default_rng(2)
    flakes = clipped_zoom(rng.normal(mean, std, (32, 40)), zoom).clip(0, 1)
    flakes[flakes < threshold] = 0
    flakes = np.round(motion_blur((flakes * 255).astype(int).astype(float), int(radius), sigma, rng.uniform(-135, -45)))
    grey = 0.299 * IMAGE[..., 0] + 0.587 * IMAGE[..., 1] + 0.114 * IMAGE[..., 2]
    white = np.maximum(IMAGE, 1.5 * grey[..., None] + 0.5)
    expected = kept * IMAGE + (1 - kept) * white + (flakes + flakes[::-1, ::-1])[..., None] / 255

    np.testing.assert_allclose(snow(IMAGE, severity, np.random.default_rng(2)), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(60, 50), (20, 16)])
def test_frost_is_a_part_of_a_photograph_laid_over_the_image(
    severity: int, size: tuple[int, int], tmp_path: Path
) -> None:
    for i, name in enumerate(FROST_PICTURES):
        Image.new("RGB", size, (50 * i, 10, 20)).save(tmp_path / name, quality=100)
    own, added = FROST[severity - 1]

    layers = [
        (frost(IMAGE, severity, np.random.default_rng(seed), tmp_path) - own * IMAGE) / added for seed in range(40)
    ]

    assert {round(layer[0, 0, 0] * 255 / 50) for layer in layers} == set(range(5))
    for layer in layers:
        np.testing.assert_allclose(255 * layer[..., 2], 20, atol=2)
        assert np.ptp(layer[..., 0]) < 0.01


def test_missing_photographs_are_named_with_the_way_to_fetch_them(tmp_path: Path) -> None:
    (tmp_path / "frost1.png").touch()

    with pytest.raises(InputError, match=rf"missing in {tmp_path}: frost2\.png, .*kravl data download frost"):
        frost(IMAGE, 1, np.random.default_rng(0), tmp_path)
