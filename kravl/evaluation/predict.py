"""One pass over evaluation sets with a classifier; image features kept where the image tower is fixed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
Loaders = Mapping[str, DataLoader]  # each yields (images, labels, indices)
# positions of a set's classes among the classifier's; several for a class that several of them stand for; None: all
Columns = Sequence[int] | Sequence[Sequence[int]] | None
Classes = Mapping[str, Columns]


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
    """Image features (b, d) of images (b, 3, h, w), and logits (b, classes) of image features.

    In place of images it takes their features. `prepare` recomputes what is kept between batches.
    """

    def prepare(self) -> None: ...
    def image_features(self, images: Tensor) -> Tensor: ...
    def logits(self, features: Tensor) -> Tensor: ...
    def features_are_fixed(self) -> bool: ...


Kept = dict[str, Batches]  # set -> its batches, image features in place of the images


class FeaturePass(LightningModule):
    """Collects the image features (b, d) of each batch, on the CPU."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.rows: list[Tensor] = []
        self._pieces = MicroBatches()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        features = self._pieces.encode(self.classifier.image_features, batch[0], "loading.eval_batch_size")
        self.rows.append(features.cpu())


def image_features(trainer: Trainer, classifier: Classifier, loader: Iterable[Batch]) -> Tensor:
    """Features (n, d) of the loader's images in its order, on the CPU; every process computes all of them."""
    features = FeaturePass(classifier)
    trainer.test(features, dataloaders=loader, verbose=False)
    return torch.cat(features.rows)  # outside of inference mode, whose tensors could not take part in training


class Predictions(NamedTuple):
    """One row per image, (n,) each, in the set's order; labels and predictions count the set's own classes."""

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
    """Collects each set's predictions, and the image features where they are to be kept."""

    def __init__(self, classifier: Classifier, classes: Classes, kept: Kept | None) -> None:
        super().__init__()
        self.classifier = classifier
        self.classes = classes
        self.takes = kept if kept == {} else None
        self.rows = cast(Sequence[_Rows], nn.ModuleList(_Rows() for _ in classes))
        self.predictions: dict[str, Predictions] = {}
        self._pieces = MicroBatches()

    def on_test_start(self) -> None:
        # the trainer tests under inference mode, whose tensors could not take part in training afterwards
        with torch.inference_mode(False), torch.no_grad():
            self.classifier.prepare()

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels, indices = batch
        name, columns = list(self.classes.items())[dataloader_idx]
        features = images if images.dim() == 2 else self._encoded(images)
        if self.takes is not None:
            self.takes.setdefault(name, Batches()).add(features, labels, indices)
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

    def _encoded(self, images: Tensor) -> Tensor:
        return self._pieces.encode(self.classifier.image_features, images, "loading.eval_batch_size")

    def on_test_epoch_end(self) -> None:
        for name, rows in zip(self.classes, self.rows, strict=True):
            # torchmetrics hands a single row back as a scalar
            self.predictions[name] = Predictions(*(column.reshape(-1).cpu() for column in rows.compute()))


def _select(logits: Tensor, columns: Columns) -> Tensor:
    """The logits (b, classes) of a set's classes: where several columns stand for one class, the largest of them."""
    if columns is None:
        return logits
    groups = [[column] if isinstance(column, int) else list(column) for column in columns]
    width = max(map(len, groups))
    # a repeated column changes no maximum
    return logits[:, [group + group[:1] * (width - len(group)) for group in groups]].amax(dim=2)


def predict(
    trainer: Trainer, classifier: Classifier, loaders: Loaders, classes: Classes, kept: Kept | None = None
) -> dict[str, Predictions]:
    """Each set's predictions with the classifier's present weights, its logits restricted to the set's classes.

    Prepares the classifier first. Under several processes every one returns all rows. ``kept`` takes the image
    features of all sets when it is empty, and when it is not, stands for the images: the same bits without a tower.

    Raises:
        InputError: a set is empty, or a label lies outside the set's classes.
        FloatingPointError: a logit is not finite.
    """
    for name, loader in loaders.items():
        if len(loader) == 0:
            raise InputError(f"evaluation set {name!r} has no images")
    evaluation = PredictionPass(classifier, {name: classes[name] for name in loaders}, kept)
    trainer.test(evaluation, dataloaders=[(kept or loaders)[name] for name in loaders], verbose=False)
    return evaluation.predictions
