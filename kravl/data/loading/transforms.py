"""From an image to pixels: the transforms of evaluation and of training."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.v2 import functional as F2

from kravl.runtime.errors import unknown

Pixels = NDArray[np.uint8]
AUGMENTATIONS = ("crop_flip", "none")
ENGINES = ("pil", "tensor")
ON_TENSORS = ("nearest", "bilinear", "bicubic")
RATIO = (3 / 4, 4 / 3)  # of width to height, torchvision's default

INTERPOLATIONS = {mode.value: mode for mode in InterpolationMode if mode != InterpolationMode.NEAREST_EXACT}
RESIZE_MODES = ("shortest", "longest", "squash")
Size = int | tuple[int, int]  # in pixels: of both sides, or (height, width)


class PreprocessLike(Protocol):
    """What a backbone expects of an image: sizes in pixels, mean and std of the RGB channels in [0, 1]."""

    @property
    def image_size(self) -> Size: ...
    @property
    def resize(self) -> Size: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def resize_mode(self) -> str: ...
    @property
    def fill(self) -> tuple[int, int, int]: ...


@dataclass(frozen=True)
class CentreCrop:
    """The image resized and its centre cropped: the evaluation transform before normalisation.

    It has the bits of open_clip's ``image_transform_v2`` and of timm's ``create_transform`` on an RGB image.

    Args:
        size: of the crop; what the resized image lacks is padded with the colour ``fill``.
        resize: what the image is resized to; under ``shortest`` it covers that with its aspect ratio kept, under
            ``longest`` it lies within, under ``squash`` it has that size.

    Raises:
        InputError: an unknown interpolation or resize mode.
    """

    size: Size
    resize: Size
    interpolation: str
    resize_mode: str = "shortest"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        mode(self.interpolation)
        if self.resize_mode not in RESIZE_MODES:
            raise unknown("resize_mode", self.resize_mode, RESIZE_MODES)

    @classmethod
    def of(cls, preprocess: PreprocessLike) -> "CentreCrop":
        """What a backbone says of its input. Raises InputError as the constructor."""
        resize, interpolation = preprocess.resize, preprocess.interpolation
        return cls(preprocess.image_size, resize, interpolation, preprocess.resize_mode, preprocess.fill)

    def __call__(self, image: Image.Image) -> Pixels:
        """Pixels (height, width, 3)."""
        resized = F.resize(image, self._resized(image), mode(self.interpolation))
        height, width = height_width(self.size)
        down, right = max(height - resized.height, 0), max(width - resized.width, 0)
        padding = [right // 2, down // 2, (right + 1) // 2, (down + 1) // 2]
        padded = F.pad(resized, padding, fill=self.fill) if any(padding) else resized
        return np.array(F.center_crop(padded, [height, width]))

    def _resized(self, image: Image.Image) -> list[int]:
        """What `F.resize` is asked for: one number is the shorter side, of which torchvision rounds the other down."""
        height, width = height_width(self.resize)
        if self.resize_mode == "squash":
            return [height, width]
        if self.resize_mode == "shortest" and height == width:
            return [height]
        ratios = image.height / height, image.width / width
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return [max(round(side / ratio), 1) for side in (image.height, image.width)]


class Normalization:
    """Pixels to (x / 255 - mean) / std in float32, bit for bit as torchvision's ``ToTensor`` and ``Normalize``."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = np.array(mean, dtype=np.float32).reshape(3, 1, 1)
        self.std = np.array(std, dtype=np.float32).reshape(3, 1, 1)

    def __call__(self, images: Sequence[Pixels]) -> Tensor:
        """Images (3, h, w), of any strides, to a batch (b, 3, h, w)."""
        return self.as_they_come(images, len(images))

    def as_they_come(self, images: Iterable[Pixels], count: int) -> Tensor:
        """Likewise of ``count`` images, each of which is asked for when the one before is done."""
        each = iter(images)
        if (first := next(each, None)) is None:
            raise IndexError("a batch of no image")
        # numpy asks the kernel for huge pages: half of the time with a fresh torch.empty is page faults
        batch = np.empty((count, *first.shape), dtype=np.float32)
        for image, out in zip(chain([first], each), batch, strict=True):  # one image at a time stays in the CPU's cache
            np.divide(np.ascontiguousarray(image), np.float32(255), out=out, dtype=np.float32)
            np.subtract(out, self.mean, out=out)
            np.divide(out, self.std, out=out)
        return torch.from_numpy(batch)


def height_width(size: Size) -> tuple[int, int]:
    """Both sides of an image, in pixels."""
    return (size, size) if isinstance(size, int) else size


def mode(interpolation: str) -> InterpolationMode:
    """Torchvision's constant of that name.

    Raises:
        InputError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    return INTERPOLATIONS[interpolation]


@dataclass(frozen=True)
class CropFlip:
    """Boxes and flips are those of torchvision's RandomResizedCrop and RandomHorizontalFlip under the same seed.

    Args:
        engine: ``pil`` resizes as torchvision does on PIL images, bit for bit; ``tensor`` with its v2 kernel on uint8,
            antialiased: faster, but the pixels differ.
        scale: least and largest fraction of the area.

    Raises:
        InputError: an unknown engine, or an interpolation that it lacks.
    """

    size: Size
    interpolation: str
    engine: str = "pil"
    scale: tuple[float, float] = (0.08, 1.0)

    def __post_init__(self) -> None:
        mode(self.interpolation)
        if self.engine not in ENGINES:
            raise unknown("data.transforms", self.engine, ENGINES)
        if self.engine == "tensor" and self.interpolation not in ON_TENSORS:
            raise unknown("interpolation on tensors", self.interpolation, ON_TENSORS)

    def view(self, pixels: Pixels, seed: int) -> tuple[Pixels, bool]:
        """A random crop of ``pixels`` (h, w, 3), as a view, and whether it is mirrored."""
        with _seeded(seed):
            box = RandomResizedCrop.get_params(as_tensor(pixels), list(self.scale), list(RATIO))
            mirrored = bool(torch.rand(1) < 0.5)
        top, left, height, width = box
        return pixels[top : top + height, left : left + width], mirrored

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """Pixels (h, w, 3) to an augmented view (3, height, width)."""
        crop, mirrored = self.view(pixels, seed)
        if self.engine == "pil":
            resized = np.asarray(F.resize(Image.fromarray(crop), self._size(), mode(self.interpolation)))
            resized = resized.transpose(2, 0, 1)
        else:
            with _one_thread():
                resized = self.resize(as_tensor(crop)).numpy()
        return resized[:, :, ::-1] if mirrored else resized

    def resize(self, crop: Tensor) -> Tensor:
        """A crop (3, h, w) to (3, height, width), uint8, on the crop's device."""
        return F2.resize(crop, self._size(), mode(self.interpolation), antialias=True)

    def _size(self) -> list[int]:
        return list(height_width(self.size))


def unchanged(pixels: Pixels, seed: int) -> Pixels:
    """Pixels (h, w, 3) as they are, channels first: training sees what evaluation sees."""
    return pixels.transpose(2, 0, 1)


def as_tensor(pixels: Pixels) -> Tensor:
    """Pixels (h, w, 3) as a tensor (3, h, w) on the same memory: channels last, for which the v2 kernels are made."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run small operations on one thread: several take longer, and far longer while training keeps them busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
