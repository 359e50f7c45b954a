"""Random crops that are resized and normalised where the model is, so that no processor core has to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kravl.data.augmentation import CropFlip
from kravl.data.cache import Cache
from kravl.data.dataset import Batch
from kravl.data.sampling import Draw
from kravl.data.transforms import Normalization


class Crops(NamedTuple):
    """Parts of images: b uint8 tensors (3, h, w) of their own sizes, whether each is mirrored (b,), labels, indices."""

    views: list[Tensor]
    mirrored: Tensor
    labels: Tensor
    indices: Tensor


class CroppedImages(Dataset[Crops]):
    """Random crops as they are cut from the image, asked for by `Draw`; `Finish` makes a batch of them."""

    def __init__(self, cache: Cache, augment: CropFlip) -> None:
        self.cache = cache
        self._augment = augment

    def __len__(self) -> int:
        return len(self.cache)

    def __getitems__(self, draws: Sequence[Draw]) -> Crops:
        views, mirrored = zip(*(self._augment.view(self.cache[d.position], d.seed) for d in draws), strict=True)
        positions = [draw.position for draw in draws]
        labels = [self.cache.samples.labels[i] for i in positions]
        # a copy of its own: a worker would send the whole image that a view is of
        tensors = [torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))) for view in views]
        return Crops(tensors, torch.tensor(mirrored), torch.tensor(labels), torch.tensor(positions))


class Finish:
    """Resizes, mirrors and normalises `Crops` on the device that they are on."""

    def __init__(self, augment: CropFlip, normalize: Normalization) -> None:
        self._augment = augment
        self._mean = torch.from_numpy(normalize.mean)
        self._std = torch.from_numpy(normalize.std)

    def __call__(self, crops: Crops) -> Batch:
        resized = torch.stack([self._augment.resize(view) for view in crops.views])
        images = torch.where(crops.mirrored[:, None, None, None], resized.flip(-1), resized)
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return Batch((images.float() / 255 - mean) / std, crops.labels, crops.indices)
