"""Corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261), by their formulas.

Each takes an RGB image, the constant of its severity, and a generator.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kravl.data.source import Samples, Source
from kravl.errors import InputError, unknown

Pixels = NDArray[np.float64]
Corruption = Callable[[Image.Image, float, np.random.Generator], Image.Image]
SIZE = 224  # pixels of the shorter side, for which the published constants were chosen


def _on_pixels(
    formula: Callable[[Pixels, float, np.random.Generator], Pixels],
    image: Image.Image,
    constant: float,
    rng: np.random.Generator,
) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64) / 255  # (h, w, 3) in [0, 1]
    # the published code truncates
    return Image.fromarray((np.clip(formula(pixels, constant, rng), 0, 1) * 255).astype(np.uint8))


def _gaussian_noise(x: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    return x + rng.normal(scale=std, size=x.shape)


def _shot_noise(x: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    hit = rng.random(x.shape) < amount
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def _contrast(x: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * factor + mean


def _brightness(x: Pixels, offset: float, rng: np.random.Generator) -> Pixels:
    # V of HSV is the largest channel; hue and saturation stay, so all channels grow in proportion, and black turns grey
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + offset, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def _pixelate(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    small = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def _jpeg(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    with Image.open(buffer) as compressed:
        return compressed.convert("RGB")


# name: the function, and its constant at severity 1 to 5
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "gaussian_noise": (partial(_on_pixels, _gaussian_noise), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (partial(_on_pixels, _shot_noise), (60, 25, 12, 5, 3)),
    "impulse_noise": (partial(_on_pixels, _impulse_noise), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "contrast": (partial(_on_pixels, _contrast), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (partial(_on_pixels, _brightness), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (_jpeg, (25, 18, 15, 10, 7)),
}


def corrupt(image: Image.Image, corruption: str, severity: int, rng: np.random.Generator) -> Image.Image:
    """The RGB ``image``, of any size, corrupted.

    Args:
        severity: 1 to 5.

    Raises:
        InputError: an unknown corruption or severity.
    """
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    function, constants = CORRUPTIONS[corruption]
    if severity not in range(1, len(constants) + 1):
        raise InputError(f"severity of {corruption} is {severity}; it must be 1 to {len(constants)}")
    return function(image, constants[severity - 1], rng)


@dataclass(frozen=True)
class CorruptedOpener:
    """The images of ``samples``, resized to a shorter side of 224 pixels and corrupted, always in the same way."""

    samples: Samples
    corruption: str
    severity: int
    seed: int

    def __call__(self, position: int) -> Image.Image:
        image = self.samples.image(position)
        factor = SIZE / min(image.size)
        resized = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        key = f"{self.seed}/{self.corruption}/{self.severity}/{self.samples.names[position]}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
        return corrupt(resized, self.corruption, self.severity, rng)

    def check(self, position: int) -> None:
        self.samples.check(position)


class Corrupted(Source):
    """The test images of ``source`` under one corruption; nothing else is changed.

    ImageNet-C crops the centre before it corrupts; here the crop is left to the evaluation transform, so that clean and
    corrupted images show the same part.

    Raises:
        InputError: an unknown corruption or severity, or a source without test images.
    """

    def __init__(self, source: Source, corruption: str, severity: int, seed: int = 0) -> None:
        corrupt(Image.new("RGB", (1, 1)), corruption, severity, np.random.default_rng(seed))
        self._opener = CorruptedOpener(source.split("test"), corruption, severity, seed)
        super().__init__(
            f"{source.name} under {corruption} {severity}",
            source.class_ids,
            ("test",),
            (*source.identity, corruption, str(severity), str(seed)),
            source.class_names,
        )

    def samples(self, split: str) -> Samples:
        """The source's test images, in its order."""
        clean = self._opener.samples
        return Samples(clean.names, clean.labels, self._opener)
