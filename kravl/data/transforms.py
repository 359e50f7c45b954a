"""From an RGB image to what the tower expects: torchvision's transforms on PIL images, pixel for pixel."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from kravl.errors import unknown

Transform = Callable[[Image.Image], Tensor]
INTERPOLATIONS = {mode.value: mode for mode in InterpolationMode if mode != InterpolationMode.NEAREST_EXACT}
AUGMENTATIONS = ("crop_flip", "none")


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


def train_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    scale: tuple[float, float] = (0.08, 1.0),
) -> Transform:
    """A random crop of a fraction ``scale`` of the area, resized to (3, size, size), flipped half of the time.

    The augmentation of CLIP-LoRA and of ImageNet training (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842).

    Raises:
        InputError: an unknown interpolation.
    """
    crop = transforms.RandomResizedCrop(size, scale=scale, interpolation=_mode(interpolation))
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(), *_normalised(mean, std)])


def eval_transform(
    size: int, resize: int, mean: Sequence[float], std: Sequence[float], interpolation: str
) -> Transform:
    """The shorter side resized to ``resize``, the centre cropped to (3, size, size).

    Raises:
        InputError: an unknown interpolation.
    """
    resized = transforms.Resize(resize, interpolation=_mode(interpolation))
    return transforms.Compose([resized, transforms.CenterCrop(size), *_normalised(mean, std)])


def make_transforms(preprocess: Preprocess, augmentation: str) -> tuple[Transform, Transform]:
    """The transforms for training and for evaluation; the same one twice if ``augmentation`` is ``none``.

    Raises:
        InputError: an unknown augmentation or interpolation.
    """
    if augmentation not in AUGMENTATIONS:
        raise unknown("augmentation", augmentation, AUGMENTATIONS)
    p = preprocess
    evaluation = eval_transform(p.image_size, p.resize, p.mean, p.std, p.interpolation)
    if augmentation == "none":
        return evaluation, evaluation
    return train_transform(p.image_size, p.mean, p.std, p.interpolation), evaluation


def transform_seeded(transform: Transform, image: Image.Image, seed: int) -> Tensor:
    """``transform(image)`` as a pure function of ``seed``; torch's generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too
        torch.default_generator.manual_seed(seed)
        return transform(image)


def _mode(interpolation: str) -> InterpolationMode:
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    return INTERPOLATIONS[interpolation]


def _normalised(mean: Sequence[float], std: Sequence[float]) -> list[Transform]:
    return [transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
