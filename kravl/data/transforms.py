"""From an RGB image to what the tower expects: torchvision's transforms on PIL images, pixel for pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from kravl.runtime.errors import unknown

Pixels = NDArray[np.uint8]
INTERPOLATIONS = {mode.value: mode for mode in InterpolationMode if mode != InterpolationMode.NEAREST_EXACT}


class Preprocess(Protocol):
    """What a backbone says of its input: sizes in pixels, mean and std of the RGB channels in [0, 1]."""

    @property
    def image_size(self) -> int: ...
    @property
    def resize(self) -> int: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def interpolation(self) -> str: ...


@dataclass(frozen=True)
class CentreCrop:
    """The shorter side resized to ``resize``, the centre cropped: the evaluation transform before normalisation.

    Raises:
        InputError: an unknown interpolation.
    """

    size: int
    resize: int
    interpolation: str

    def __post_init__(self) -> None:
        mode(self.interpolation)

    def __call__(self, image: Image.Image) -> Pixels:
        """Pixels (size, size, 3)."""
        resized = F.resize(image, self.resize, mode(self.interpolation))
        return np.array(F.center_crop(resized, [self.size, self.size]))


class Normalization:
    """Pixels to (x / 255 - mean) / std in float32, with the bits of torchvision's ``ToTensor`` and ``Normalize``."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = np.array(mean, dtype=np.float32).reshape(3, 1, 1)
        self.std = np.array(std, dtype=np.float32).reshape(3, 1, 1)

    def __call__(self, images: Sequence[Pixels]) -> Tensor:
        """Images (3, h, w), strided as they like, to a batch (b, 3, h, w)."""
        # numpy asks the kernel for huge pages: half of the time of a fresh torch.empty is page faults
        batch = np.empty((len(images), *images[0].shape), dtype=np.float32)
        for image, out in zip(images, batch, strict=True):  # one at a time stays in the processor's cache
            np.divide(np.ascontiguousarray(image), np.float32(255), out=out, dtype=np.float32)
            np.subtract(out, self.mean, out=out)
            np.divide(out, self.std, out=out)
        return torch.from_numpy(batch)


def mode(interpolation: str) -> InterpolationMode:
    """Torchvision's constant of that name.

    Raises:
        InputError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    return INTERPOLATIONS[interpolation]
