"""Predictions of a classifier on evaluation sets, from images or from image features computed once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kravl.runtime.errors import InputError
from kravl.runtime.microbatch import MicroBatches

Batch = tuple[Tensor, Tensor, Tensor]  # images, labels, indices
EvaluationLoaders = Mapping[str, DataLoader]  # set -> loader of (images, labels, indices)
# positions of a set's classes among the classifier's; several for a class that comprises several of them; None: all
Columns = Sequence[int] | Sequence[Sequence[int]] | None
Classes = Mapping[str, Columns]


class Batches:
    """Batches in memory, iterated like a loader; Lightning would take a plain list for several loaders."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []

    def add(self, *batch: Tensor) -> None:
        self._batches.append(tuple(tensor.cpu() for tensor in batch))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class ClassifierLike(Protocol):
    """Image features (b, d) of images (b, 3, h, w), and logits (b, classes) of image features.

    `prepare` recomputes what is cached between batches.
    """

    def prepare(self) -> None: ...
    def image_features(self, images: Tensor) -> Tensor: ...
    def logits(self, features: Tensor) -> Tensor: ...
    def features_are_fixed(self) -> bool: ...


class FeaturePass(LightningModule):
    """Collects each set's batches, with image features (b, d) in place of the images, on the CPU."""

    def __init__(self, classifier: ClassifierLike, sets: Iterable[str]) -> None:
        super().__init__()
        self.classifier = classifier
        self.batches = {name: Batches() for name in sets}
        self._micro_batches = MicroBatches()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels, indices = batch
        features = self._micro_batches.encode(self.classifier.image_features, images, "loading.eval_batch_size")
        list(self.batches.values())[dataloader_idx].add(features, labels, indices)


def encode(trainer: Trainer, classifier: ClassifierLike, loaders: EvaluationLoaders) -> dict[str, Batches]:
    """Each set's batches with image features (b, d) in place of the images, for `predict`: bit for bit the same.

    Raises:
        InputError: a set is empty.
    """
    _require_images(loaders)
    features = FeaturePass(classifier, loaders)
    trainer.test(features, dataloaders=list(loaders.values()), verbose=False)
    return features.batches


def image_features(trainer: Trainer, classifier: ClassifierLike, loader: DataLoader) -> Tensor:
    """Features (n, d) of the loader's images in its order, on the CPU; every process computes all of them."""
    batches = encode(trainer, classifier, {"": loader})[""]
    return torch.cat([features for features, _, _ in batches])  # not in inference mode: these train a head


class Predictions(NamedTuple):
    """One row per image, (n,) each, in the set's order; labels and predictions index the set's own classes."""

    indices: Tensor
    labels: Tensor
    predicted: Tensor
    confidence: Tensor  # probability of the predicted class
    loss: Tensor  # cross-entropy in nats

    def sample(self, count: int) -> list[tuple[int, int, int, float]]:
        """``count`` rows (index, label, predicted, confidence), spread evenly: sets are listed class by class."""
        rows = torch.linspace(0, len(self.indices) - 1, min(count, len(self.indices))).round().long()
        columns = (self.indices, self.labels, self.predicted, self.confidence)
        return list(zip(*(column[rows].tolist() for column in columns), strict=True))


class _Rows(Metric):
    """Gathers the predictions of all processes and drops the images that a distributed sampler repeats."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in Predictions._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, rows: Predictions) -> None:
        for name, values in rows._asdict().items():
            getattr(self, name).append(values)

    def compute(self) -> Predictions:
        rows = Predictions(*(dim_zero_cat(getattr(self, name)) for name in Predictions._fields))
        order = rows.indices.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = rows.indices[order].diff() != 0
        return Predictions(*(column[order[first]] for column in rows))


class PredictionPass(LightningModule):
    """Collects each set's predictions, from batches of images or of image features."""

    def __init__(self, classifier: ClassifierLike, classes: Classes) -> None:
        super().__init__()
        self.classifier = classifier
        self.classes = classes
        self.rows = cast(Sequence[_Rows], nn.ModuleList(_Rows() for _ in classes))
        self.predictions: dict[str, Predictions] = {}
        self._micro_batches = MicroBatches()

    def on_test_start(self) -> None:
        # the trainer tests in inference mode, whose tensors could not be used in training afterwards
        with torch.inference_mode(False), torch.no_grad():
            self.classifier.prepare()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels, indices = batch
        name, columns = list(self.classes.items())[dataloader_idx]
        features = images if images.dim() == 2 else self._encode(images)
        logits = _select(self.classifier.logits(features), columns)
        outside = (labels < 0) | (labels >= logits.shape[1])
        if outside.any():
            image, label, last = indices[outside][0].item(), labels[outside][0].item(), logits.shape[1] - 1
            raise InputError(f"evaluation set {name!r}: image {image} has label {label}; its classes are 0 to {last}")
        loss = F.cross_entropy(logits, labels, reduction="none")
        if not loss.isfinite().all():
            image = indices[~loss.isfinite()][0].item()
            raise FloatingPointError(f"evaluation set {name!r}: the logits of image {image} are not finite")
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self.rows[dataloader_idx].update(Predictions(indices, labels, predicted, confidence, loss))

    def _encode(self, images: Tensor) -> Tensor:
        return self._micro_batches.encode(self.classifier.image_features, images, "loading.eval_batch_size")

    def on_test_epoch_end(self) -> None:
        for name, rows in zip(self.classes, self.rows, strict=True):
            # torchmetrics returns a single row as a scalar
            self.predictions[name] = Predictions(*(column.reshape(-1).cpu() for column in rows.compute()))


def _select(logits: Tensor, columns: Columns) -> Tensor:
    """The logits (b, classes) of a set's classes: the largest of those columns that a class comprises."""
    if columns is None:
        return logits
    groups = [[column] if isinstance(column, int) else list(column) for column in columns]
    width = max(map(len, groups))
    # repeating a column does not change the maximum
    return logits[:, [group + group[:1] * (width - len(group)) for group in groups]].amax(dim=2)


def predict(
    trainer: Trainer,
    classifier: ClassifierLike,
    loaders: EvaluationLoaders | Mapping[str, Batches],
    classes: Classes,
) -> dict[str, Predictions]:
    """Each set's predictions with the classifier's current weights, its logits restricted to the set's classes.

    Prepares the classifier first. Under several processes, each returns all rows. ``loaders`` may hold the features of
    `encode` in place of images: the image tower does not run then.

    Raises:
        InputError: a set is empty, or a label lies outside the set's classes.
        FloatingPointError: a logit is not finite.
    """
    _require_images(loaders)
    evaluation = PredictionPass(classifier, {name: classes[name] for name in loaders})
    trainer.test(evaluation, dataloaders=list(loaders.values()), verbose=False)
    return evaluation.predictions


def _require_images(loaders: Mapping[str, Sized]) -> None:
    for name, loader in loaders.items():
        if len(loader) == 0:
            raise InputError(f"evaluation set {name!r} has no images")
