"""Batches of samples: augmented for training, plain for evaluation. A batch is asked for as a whole, by its indices."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kravl.data.cache import Cache
from kravl.data.pixel_file import PixelFile
from kravl.data.sampling import Draw
from kravl.data.source import Samples
from kravl.data.transforms import CentreCrop, Normalization, Pixels

Augment = Callable[[Pixels, int], Pixels]  # pixels (h, w, 3) and a seed to pixels (3, size, size)


class Batch(NamedTuple):
    """Images (b, 3, h, w) float32, labels (b,) and indices (b,) int64: positions in the loader's samples.

    Where a classifier's image tower is frozen, its features (b, d) may stand for the images.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class TrainingImages(Dataset[Batch]):
    """Augmented images, asked for by `Draw`; read once and kept."""

    def __init__(self, cache: Cache, augment: Augment, normalize: Normalization) -> None:
        self.cache = cache
        self._augment = augment
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self.cache)

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        views = [self._augment(self.cache[draw.position], draw.seed) for draw in draws]
        positions = [draw.position for draw in draws]
        return Batch(self._normalize(views), *_labelled(self.cache.samples, positions))


class TrainingFeatures(Dataset[Batch]):
    """Rows of image features (n, d) in place of the images of ``samples``, asked for by `Draw`."""

    def __init__(self, samples: Samples, features: Tensor) -> None:
        self.samples = samples
        self._features = features

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        positions = [draw.position for draw in draws]
        return Batch(self._features[positions], *_labelled(self.samples, positions))


class EvaluationImages(Dataset[Batch]):
    """Images as they are evaluated; from ``pixel_file``, where they have been written to one."""

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
        return Batch(self._normalize([self._pixels(i) for i in indices]), *_labelled(self.samples, indices))

    def _pixels(self, index: int) -> Pixels:
        if self._pixel_file is not None:
            return self._pixel_file[index]
        return self._crop(self.samples.image(index)).transpose(2, 0, 1)


def _labelled(samples: Samples, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([samples.labels[i] for i in indices]), torch.tensor(indices)
