"""Samples as a torch data set, and their batches on the device."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kravl.data.loading.cache import Cache, read_pixels
from kravl.data.loading.pixel_cache import PixelFile
from kravl.data.loading.samplers import AugmentedIndex
from kravl.data.loading.transforms import CentreCrop, CropFlip, Normalization, Pixels
from kravl.data.source import Samples

Augment = Callable[[Pixels, int], Pixels]  # pixels (h, w, 3) and a seed to pixels (3, height, width)


class Batch(NamedTuple):
    """Images (b, 3, h, w) float32, labels (b,) and indices (b,) int64: positions in the loader's samples.

    Where a classifier's image tower is frozen, its features (b, d) may stand for the images.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class TrainingImages(Dataset[Batch]):
    """Augmented images, indexed by `AugmentedIndex`; each is read once and cached."""

    def __init__(self, cache: Cache, augment: Augment, normalize: Normalization) -> None:
        self.cache = cache
        self._augment = augment
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self.cache)

    def __getitems__(self, draws: Sequence[AugmentedIndex]) -> Batch:
        views = [self._augment(self.cache[draw.position], draw.seed) for draw in draws]
        positions = [draw.position for draw in draws]
        return Batch(self._normalize(views), *_labelled(self.cache.samples, positions))


class TrainingFeatures(Dataset[Batch]):
    """Rows of image features (n, d) in place of the images of ``samples``, indexed by `AugmentedIndex`."""

    def __init__(self, samples: Samples, features: Tensor) -> None:
        self.samples = samples
        self._features = features

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, draws: Sequence[AugmentedIndex]) -> Batch:
        positions = [draw.position for draw in draws]
        return Batch(self._features[positions], *_labelled(self.samples, positions))


class EvaluationImages(Dataset[Batch]):
    """Images under the evaluation transform; read from ``pixel_file``, if there is one."""

    def __init__(
        self, samples: Samples, crop: CentreCrop, normalize: Normalization, pixel_file: PixelFile | None = None
    ) -> None:
        self.samples = samples
        self._crop = crop
        self._normalize = normalize
        self._pixel_file = pixel_file

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        # one at a time: an image that was just held against its checksum is still in the processor's cache
        images = self._normalize.as_they_come(map(self._pixels, indices), len(indices))
        return Batch(images, *_labelled(self.samples, indices))

    def _pixels(self, index: int) -> Pixels:
        if self._pixel_file is not None:
            return self._pixel_file[index]
        return read_pixels(self.samples, index, self._crop).transpose(2, 0, 1)


def _labelled(samples: Samples, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([samples.labels[i] for i in indices]), torch.tensor(indices)


class Crops(NamedTuple):
    """Crops of images: b uint8 tensors (3, h, w) of various sizes, whether each is mirrored (b,), labels, indices."""

    views: list[Tensor]
    mirrored: Tensor
    labels: Tensor
    indices: Tensor


class CroppedImages(Dataset[Crops]):
    """Random crops before resizing, indexed by `AugmentedIndex`; `FinishCrops` makes a batch of them."""

    def __init__(self, cache: Cache, augment: CropFlip) -> None:
        self.cache = cache
        self._augment = augment

    def __len__(self) -> int:
        return len(self.cache)

    def __getitems__(self, draws: Sequence[AugmentedIndex]) -> Crops:
        views, mirrored = zip(*(self._augment.view(self.cache[d.position], d.seed) for d in draws), strict=True)
        positions = [draw.position for draw in draws]
        labels = [self.cache.samples.labels[i] for i in positions]
        # copied, as a worker would send the full image that a view refers to
        tensors = [torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))) for view in views]
        return Crops(tensors, torch.tensor(mirrored), torch.tensor(labels), torch.tensor(positions))


class FinishCrops:
    """Resizes, mirrors and normalises `Crops` on the device that they are on."""

    def __init__(self, augment: CropFlip, normalize: Normalization) -> None:
        self._augment = augment
        self._mean = torch.from_numpy(normalize.mean)
        self._std = torch.from_numpy(normalize.std)

    def __call__(self, crops: Crops) -> Batch:
        resized = torch.stack([self._augment.resize(view) for view in crops.views])
        images = torch.where(crops.mirrored[:, None, None, None], resized.flip(-1), resized)
        # once: a copy to a GPU waits for it
        self._mean, self._std = self._mean.to(images.device), self._std.to(images.device)
        return Batch((images.float() / 255 - self._mean) / self._std, crops.labels, crops.indices)
