"""Corruptions follow their published formulas, and an image is always corrupted in the same way."""

import colorsys
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.corruptions.source import CORRUPTIONS, FROST, Corrupted, corrupt
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
PIXELS[0, :3] = [(0, 0, 0), (255, 255, 255), (7, 7, 7)]
PHOTO = Image.fromarray(PIXELS)
GREY = Image.new("RGB", (300, 300), (128, 128, 128))
SEVERITIES = range(1, 6)


def corrupted(image: Image.Image, name: str, severity: int) -> np.ndarray:
    return np.asarray(corrupt(image, name, severity, np.random.default_rng(1))).astype(float)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_published_standard_deviation(severity: int) -> None:
    std = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noise = np.random.default_rng(5).normal(0, std, 300_000)
    expected = np.clip(128 / 255 + noise, 0, 1).std()  # clipping narrows it

    measured = (corrupted(GREY, "gaussian_noise", severity) / 255).std()

    assert measured == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_photons(severity: int) -> None:
    photons = (60, 25, 12, 5, 3)[severity - 1]

    values = corrupted(GREY, "shot_noise", severity)

    counts = values * photons / 255  # whole numbers, less what truncation takes
    assert np.all(np.ceil(counts) - counts <= photons / 255 + 1e-9)
    assert (values == 0).mean() == pytest.approx(np.exp(-photons * 128 / 255), abs=0.003)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_turns_the_published_share_black_or_white(severity: int) -> None:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]

    values = corrupted(GREY, "impulse_noise", severity)

    assert set(np.unique(values)) == {0, 128, 255}
    assert (values == 0).mean() == pytest.approx(amount / 2, abs=0.003)
    assert (values == 255).mean() == pytest.approx(amount / 2, abs=0.003)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_each_channel_towards_its_mean(severity: int) -> None:
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    expected = np.stack([c.mean() + factor * (c - c.mean()) for c in PIXELS.astype(float).transpose(2, 0, 1)], axis=2)

    values = corrupted(PHOTO, "contrast", severity)

    assert np.all((values >= expected - 1 - 1e-6) & (values <= expected + 1e-6))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_raises_the_value_of_hsv(severity: int) -> None:
    offset = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    expected = []
    for pixel in PIXELS.reshape(-1, 3):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected.append(colorsys.hsv_to_rgb(hue, saturation, min(value + offset, 1)))

    values = corrupted(PHOTO, "brightness", severity).reshape(-1, 3)

    difference = 255 * np.array(expected) - values
    assert np.all((difference > -1e-6) & (difference < 1 + 1e-6))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_and_jpeg_are_pillows_own(severity: int) -> None:
    small = tuple(int(side * (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]) for side in PHOTO.size)
    boxes = PHOTO.resize(small, Image.Resampling.BOX).resize(PHOTO.size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    PHOTO.save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])

    assert np.array_equal(corrupted(PHOTO, "pixelate", severity), np.asarray(boxes))
    assert np.array_equal(corrupted(PHOTO, "jpeg_compression", severity), np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != FROST])
def test_an_image_is_corrupted_alike_in_any_order_and_process(name: str, make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("test", {"cat": 3})), train="test", test="test")
    samples = Corrupted(source, name, 2).split("test")

    forwards = [samples.image(i).tobytes() for i in range(3)]
    backwards = [samples.image(i).tobytes() for i in (2, 1, 0)][::-1]

    assert forwards == backwards
    assert pickle.loads(pickle.dumps(samples)).subset([2]).image(0).tobytes() == forwards[2]
    assert samples.image(0).size == (224, 269)
    assert samples.labels == source.split("test").labels
    samples.check(0)


def test_noise_differs_by_image_and_by_seed(make_tree: Callable[..., Path]) -> None:
    root = make_tree("test", {"cat": 1})
    for name in ("0.png", "1.png"):
        GREY.save(root / "test/cat" / name)
    source = ImageFolder(str(root), train="test", test="test")

    first = Corrupted(source, "gaussian_noise", 1).split("test")
    other = Corrupted(source, "gaussian_noise", 1, seed=1).split("test")

    assert len({first.image(0).tobytes(), first.image(1).tobytes(), other.image(0).tobytes()}) == 3


def test_a_corrupted_set_keeps_classes_and_is_told_apart_from_its_source(make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("test", {"hot_dog": 1})), train="test", test="test")

    noisy = Corrupted(source, "contrast", 1)

    assert (noisy.class_ids, noisy.class_names) == (source.class_ids, source.class_names)
    assert len({source.identity, noisy.identity, Corrupted(source, "contrast", 2).identity}) == 3


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("gausian_noise", 1, "unknown corruption 'gausian_noise': did you mean 'gaussian_noise'"),
        ("contrast", 6, "severity of contrast is 6; it must be 1 to 5"),
        ("contrast", 0, "severity of contrast is 0"),
        ("frost", 1, "frost needs the photographs of ImageNet-C.*missing in None: frost1.png.*download frost"),
    ],
)
def test_an_unknown_corruption_or_severity_is_refused(
    name: str, severity: int, message: str, make_tree: Callable[..., Path]
) -> None:
    source = ImageFolder(str(make_tree("test", {"cat": 1})), train="test", test="test")

    with pytest.raises(InputError, match=message):
        Corrupted(source, name, severity)
