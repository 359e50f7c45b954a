"""Few-shot images: of a data set of the Hub, and handwritten digits that come with scikit-learn."""

import random
from collections.abc import Iterator, Sequence

import torch
from record import TrainConfig
from torch import Tensor


class Images:
    """Pixels (n, 3, h, w) and labels (n,)."""

    def __init__(self, pixels: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.pixels, self.labels = torch.stack(list(pixels)), torch.tensor(list(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.pixels.split(size), self.labels.split(size), strict=True)

    def endless(self, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of shuffled passes over the images, without end."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.empty(0, dtype=torch.long)
        while True:
            while len(order) < size:
                order = torch.cat([order, torch.randperm(len(self), generator=generator)])
            rows, order = order[:size], order[size:]
            yield self.pixels[rows], self.labels[rows]


def shots_of(labels: Sequence[int], config: TrainConfig) -> tuple[list[int], list[int]]:
    """Indices to train on and to validate on, ``shots`` and ``valid_shots`` of each class."""
    train, valid = [], []
    for label in sorted(set(labels)):
        rows = [i for i, other in enumerate(labels) if other == label]
        random.Random(config.seed).shuffle(rows)
        train += rows[: config.shots]
        valid += rows[config.shots : config.shots + config.valid_shots]
    return train, valid


def load_images(config: TrainConfig) -> tuple[Images, Images, Images, list[str]]:
    """Training, validation and test images of a data set of the Hub, and the names of its classes."""
    from transformers import CLIPImageProcessor

    from datasets import load_dataset

    processor = CLIPImageProcessor.from_pretrained(config.model_id)
    source = load_dataset(config.dataset_id)
    train, test = source[config.train_split], source[config.test_split]
    names = train.features[config.label_column].names

    def images(split, rows: Sequence[int]) -> Images:
        some = split.select(rows)
        pictures = [picture.convert("RGB") for picture in some[config.image_column]]
        return Images(processor(pictures, return_tensors="pt")["pixel_values"], some[config.label_column])

    shots, valid = shots_of(train[config.label_column], config)
    rows = list(range(len(test)))[: config.test_size]
    return images(train, shots), images(train, valid), images(test, rows), names


def small_digits(config: TrainConfig) -> tuple[Images, Images, Images]:
    """8 x 8 digits, doubled in size."""
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(pictures, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    pixels = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)
    shots, valid = shots_of(labels.tolist(), config)
    rest = sorted(set(range(len(labels))) - {*shots, *valid})[:200]
    return tuple(Images(pixels[rows], labels[rows].tolist()) for rows in (shots, valid, rest))  # type: ignore[return-value]
