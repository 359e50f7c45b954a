"""Image features that stay the same while a head trains: computed once, in the trainer's precision, on its devices."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from kravl.runtime.microbatch import Pieces

Batch = tuple[Tensor, Tensor, Tensor]  # images, labels, indices


class Batches:
    """What a loader has yielded, to be gone through again; Lightning would take a plain list for several loaders."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []

    def add(self, *batch: Tensor) -> None:
        self._batches.append(tuple(tensor.cpu() for tensor in batch))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Classifier(Protocol):
    """Image features (b, d) of images (b, 3, h, w); in place of images it takes their features."""

    def image_features(self, images: Tensor) -> Tensor: ...
    def features_are_fixed(self) -> bool: ...


class _Pass(LightningModule):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.rows: list[Tensor] = []
        self._pieces = Pieces()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        features = self._pieces.encode(self.classifier.image_features, batch[0], "loading.eval_batch_size")
        self.rows.append(features.cpu())


def image_features(trainer: Trainer, classifier: Classifier, loader: Iterable[Batch]) -> Tensor:
    """Features (n, d) of the loader's images in its order, on the CPU; every process computes all of them."""
    features = _Pass(classifier)
    trainer.test(features, dataloaders=loader, verbose=False)
    return torch.cat(features.rows)  # outside of inference mode, whose tensors could not take part in training
