"""Samples as tensors: augmented for training, plain for evaluation."""

from torch import Tensor
from torch.utils.data import Dataset

from kravl.data.cache import Cache
from kravl.data.sampling import Draw
from kravl.data.source import Samples
from kravl.data.transforms import Transform, transform_seeded

Item = tuple[Tensor, int, int]  # an image (3, h, w), its label, its position in the samples


class TrainingImages(Dataset[Item]):
    """Augmented images, asked for by a `Draw`; decoded once and kept."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples = samples
        self.cache = Cache(samples)
        self._transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> Item:
        image = transform_seeded(self._transform, self.cache.image(draw.position), draw.seed)
        return image, self.samples.labels[draw.position], draw.position


class EvaluationImages(Dataset[Item]):
    """Images as they are evaluated."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples = samples
        self._transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        return self._transform(self.samples.image(index)), self.samples.labels[index], index
