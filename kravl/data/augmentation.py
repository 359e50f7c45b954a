"""Random crop and flip as a pure function of a seed (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842).

The augmentation of CLIP-LoRA and of ImageNet training: a random part of the image, resized, mirrored half of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.v2 import functional as F2

from kravl.data.transforms import Pixels, mode
from kravl.runtime.errors import unknown

AUGMENTATIONS = ("crop_flip", "none")
ENGINES = ("pil", "tensor")
ON_TENSORS = ("nearest", "bilinear", "bicubic")
RATIO = (3 / 4, 4 / 3)  # of width to height, torchvision's default


@dataclass(frozen=True)
class CropFlip:
    """Boxes and flips are those of torchvision's RandomResizedCrop and RandomHorizontalFlip under the same seed.

    Args:
        engine: ``pil`` resizes as torchvision does on PIL images, bit for bit; ``tensor`` with its v2 kernel on uint8,
            antialiased: faster, and not the same pixels.
        scale: least and largest fraction of the area.

    Raises:
        InputError: an unknown engine, or an interpolation that it lacks.
    """

    size: int
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
        """The part of ``pixels`` (h, w, 3) that is drawn, without a copy, and whether it is mirrored."""
        with _seeded(seed):
            box = RandomResizedCrop.get_params(as_tensor(pixels), list(self.scale), list(RATIO))
            mirrored = bool(torch.rand(1) < 0.5)
        top, left, height, width = box
        return pixels[top : top + height, left : left + width], mirrored

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """Pixels (h, w, 3) to an augmented view (3, size, size)."""
        crop, mirrored = self.view(pixels, seed)
        if self.engine == "pil":
            resized = np.asarray(F.resize(Image.fromarray(crop), [self.size, self.size], mode(self.interpolation)))
            resized = resized.transpose(2, 0, 1)
        else:
            with _one_thread():
                resized = self.resize(as_tensor(crop)).numpy()
        return resized[:, :, ::-1] if mirrored else resized

    def resize(self, crop: Tensor) -> Tensor:
        """A crop (3, h, w) to (3, size, size), uint8, on the crop's device."""
        return F2.resize(crop, [self.size, self.size], mode(self.interpolation), antialias=True)


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
    """Keep small operations off the threads that train: more of them cost time, and collapse when busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
