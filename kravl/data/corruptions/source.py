"""Any set's test images under a corruption of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, 1903.12261)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kravl.data.corruptions import blur, digital, noise, weather
from kravl.data.corruptions.filters import Pixels
from kravl.data.images import Opener
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.shared import Key

SIZE = 224  # pixels of the shorter side, for which the published constants were chosen
SEVERITIES = range(1, 6)
ON_PIXELS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    function.__name__: function
    for function in (
        *(noise.gaussian_noise, noise.shot_noise, noise.impulse_noise),
        *(blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur),
        *(weather.snow, weather.fog, weather.brightness),
        *(digital.contrast, digital.elastic_transform),
    )
}
ON_IMAGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
FROST = "frost"  # the one that needs pictures
CORRUPTIONS = (*ON_PIXELS, *ON_IMAGES, FROST)


def corrupt(
    image: Image.Image, corruption: str, severity: int, rng: np.random.Generator, frost: Path | None = None
) -> Image.Image:
    """The RGB ``image``, of any size, corrupted.

    Args:
        severity: 1 to 5.
        frost: folder of the photographs that the corruption ``frost`` lays over an image.

    Raises:
        InputError: an unknown corruption or severity, or no photographs of frost.
    """
    _check(corruption, severity)
    if corruption in ON_IMAGES:
        return ON_IMAGES[corruption](image, severity)
    formula = partial(weather.frost, pictures=frost) if corruption == FROST else ON_PIXELS[corruption]
    pixels = formula(np.asarray(image, dtype=np.float64) / 255, severity, rng)
    # the published code truncates
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _check(corruption: str, severity: int) -> None:
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise InputError(f"severity of {corruption} is {severity}; it must be 1 to {len(SEVERITIES)}")


@dataclass(frozen=True)
class CorruptedOpener(Opener):
    """The images of ``samples``, resized to a shorter side of 224 pixels and corrupted, always in the same way."""

    samples: Samples
    corruption: str
    severity: int
    seed: int
    frost: Path | None = None

    def __call__(self, position: int) -> Image.Image:
        image = self.samples.image(position)
        factor = SIZE / min(image.size)
        resized = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        key = f"{self.seed}/{self.corruption}/{self.severity}/{self.samples.names[position]}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()))
        return corrupt(resized, self.corruption, self.severity, rng, self.frost)

    def check(self, position: int) -> None:
        self.samples.check(position)

    def identity(self, position: int) -> Key | None:
        if self.frost is not None:  # photographs of a folder, which may change
            return None
        clean = self.samples.identity(position)
        return clean and (self.corruption, self.severity, self.seed, self.samples.names[position], clean)


class Corrupted(Source):
    """The test images of ``source`` under one corruption; nothing else is changed.

    ImageNet-C crops the centre before it corrupts; here the crop is left to the evaluation transform, so that clean and
    corrupted images show the same part. Its authors prefer their published JPEG files, to which these images are equal
    in kind, not in bits.

    Args:
        frost: folder of ImageNet-C's photographs of frost, which the corruption ``frost`` alone needs.

    Raises:
        InputError: an unknown corruption or severity, no photographs of frost, or a source without test images.
    """

    def __init__(self, source: Source, corruption: str, severity: int, seed: int = 0, frost: str | None = None) -> None:
        pictures = None if frost is None else Path(frost)
        _check(corruption, severity)
        if corruption == FROST:
            weather.frost_pictures(pictures)
        self._opener = CorruptedOpener(source.split("test"), corruption, severity, seed, pictures)
        super().__init__(
            f"{source.name} under {corruption} {severity}",
            source.class_ids,
            ("test",),
            (*source.identity, corruption, str(severity), str(seed)),
            source.class_names,
        )
        self.templates, self.descriptions = source.templates, source.descriptions

    def samples(self, split: str) -> Samples:
        """The source's test images, in its order."""
        clean = self._opener.samples
        return Samples(clean.names, clean.labels, self._opener)
