"""A few-shot training set, its test set, and the sets it is evaluated on out of distribution."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from kravl.data.classes import Columns, match_classes, own_columns, trained_columns
from kravl.data.fewshot import few_shot_split, require_shots
from kravl.data.inspect.limits import allow_megapixels
from kravl.data.loading.dataset import Batch, Crops
from kravl.data.loading.loaders import Loaders
from kravl.data.loading.resumable import LoadingSettings, ResumableLoader
from kravl.data.loading.transforms import PreprocessLike
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, unknown

log = logging.getLogger(__name__)
IN_DOMAIN = "test"
EVALUATION_CLASSES = ("trained", "own")


@dataclass(frozen=True)
class FewShotSplit:
    """Which images are drawn; see `fewshot.few_shot_split`."""

    shots: int | float | None = 16
    split_seed: int = 1
    protocol: str = "coop"
    short_classes: str = "error"
    held_out: bool = False  # evaluate on training data that is not trained on


class FewShotDataModule(LightningDataModule):
    """The images of one run.

    ``train_samples`` and ``val_samples`` are the images drawn, ``split_sha256`` identifies the training images and
    their order; ``test_sets`` are the test images of every set, whatever is drawn. Nothing is decoded before `check` or
    a loader needs it. Set ``preprocess``, what the backbone expects of an image, before checking images or asking for a
    loader.

    Args:
        evaluation: sets besides ``source``'s own test images, by the name of their metrics.
        classes: ``trained`` scores an evaluation set among the trained classes that it has, ``own`` among its own,
            which `further_classes` lists for the classifier.

    Raises:
        InputError: a class with too few images, an evaluation set with classes that are not trained or no image but
            those trained on, a split that a source does not have, or an unknown choice of ``classes``.
    """

    def __init__(
        self,
        source: Source,
        split: FewShotSplit,
        loading: LoadingSettings,
        evaluation: Mapping[str, Source] | None = None,
        classes: str = "trained",
    ) -> None:
        super().__init__()
        if evaluation and IN_DOMAIN in evaluation:
            raise InputError(f"an evaluation set cannot be named {IN_DOMAIN!r}: that is the training set's own")
        self.preprocess: PreprocessLike | None = None
        self._features: Tensor | None = None
        self.source = source
        self.loading = loading
        allow_megapixels(loading.max_megapixels)
        self.train_samples, self.val_samples = _draw(source, split)
        self.split_sha256 = source.split_sha256(self.train_samples)
        self.sources = {IN_DOMAIN: source, **(evaluation or {})}
        if classes not in EVALUATION_CLASSES:
            raise unknown("evaluation.classes", classes, EVALUATION_CLASSES)
        self._own_classes = classes == "own"
        self._classes: dict[str, Columns] = (
            own_columns(self.sources)
            if self._own_classes
            else {name: match_classes(s, source.class_ids) for name, s in self.sources.items()}
        )
        self.test_sets = {name: s.split("test") for name, s in self.sources.items()}
        evaluated = {IN_DOMAIN: self._held_out()} if split.held_out else self.test_sets
        self._evaluated = {name: _untrained(name, s, self.train_samples) for name, s in evaluated.items()}

    def check(self, training: bool = True) -> None:
        """Decode every image that the run needs and cache what can be cached; without ``training`` the evaluated ones.

        Raises:
            InputError: images cannot be read: how many, with set, path and reason of up to 20.
        """
        self._loaders.check(training)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented batches of the drawn images, at least ``min_batches`` per epoch."""
        return self._loaders.training(self._features)

    def repeated_images(self) -> DataLoader[Batch] | None:
        """The drawn images in order, if every epoch shows the same pixels, that is without augmentation."""
        return self._loaders.repeated()

    def views(self, count: int, least_area: float) -> DataLoader[Batch]:
        """Augmented views of the drawn images, see `Loaders.views`; each once and unaugmented without augmentation."""
        plain = self._loaders.repeated()
        return self._loaders.views(count, least_area) if plain is None else plain

    def validation(self) -> DataLoader[Batch]:
        """The validation images that were drawn, in order, under the evaluation transform."""
        return self._loaders.in_order(self.val_samples)

    def transform(self, least_area: float | None = None) -> str:
        """What decides the pixels of an evaluated image, or of a view: part of the key of its features."""
        return self._loaders.describe(least_area)

    def train_on(self, features: Tensor | None) -> None:
        """From now on `train_dataloader` yields ``features`` (n, d) in place of the drawn images; None: the images."""
        assert features is None or len(features) == len(self.train_samples)
        self._features = features

    def on_after_batch_transfer(self, batch: Batch | Crops, dataloader_idx: int) -> Batch:
        """The batch as the learner expects it, finished on the model's device."""
        return self._loaders.finish(batch)

    def evaluation_loaders(self) -> dict[str, DataLoader[Batch]]:
        """``test`` first, then the evaluation sets as given; ``loader.dataset.samples`` are the images."""
        return self._loaders.evaluation()

    def evaluation_classes(self, selective: bool = False) -> dict[str, Columns]:
        """For each loader the positions of its classes among the classifier's; None for all of them.

        With ``selective``, a class that is also trained is scored as the trained one, in a set of own classes too.
        """
        return trained_columns(self.sources) if selective and self._own_classes else dict(self._classes)

    def further_classes(self) -> list[tuple[tuple[str, ...], tuple[str, ...] | tuple[tuple[str, ...], ...]]]:
        """Class names and prompts of the sets scored among their own classes, in the order of their columns."""
        others = [source for name, source in self.sources.items() if name != IN_DOMAIN]
        return [(source.class_names, source.prompts) for source in others] if self._own_classes else []

    @property
    def evaluated(self) -> Mapping[str, Samples]:
        """The images of each evaluated set, ``test`` first, without those that are trained on."""
        return self._evaluated

    @property
    def test_samples(self) -> Samples:
        """The images whose metrics are called ``test``."""
        return self._evaluated[IN_DOMAIN]

    def check_test_images(self) -> None:
        """Raise InputError where every test image may be trained on: one folder or list was named for both."""
        if IN_DOMAIN not in self._evaluated or self._evaluated[IN_DOMAIN] is not self.test_sets[IN_DOMAIN]:
            return
        tested = [file for file in _identities(self.test_samples) if file is not None]
        if tested and set(tested) <= set(_identities(self.source.drawn_from().split("train"))):
            raise InputError(
                f"{self.source.name}: all {len(self.test_samples)} images to test on, such as "
                f"{self.test_samples.file(0)}, are images to train on; name others to test on, such as a folder with "
                "data.test=..., or none, so that a share of each class is held out"
            )

    def tested_validation(self) -> int:
        """How many of the validation images that were drawn are tested on, whatever path leads to them."""
        tested = {file for file in _identities(self.test_samples) if file is not None}
        return sum(file in tested for file in _identities(self.val_samples))

    def _held_out(self) -> Samples:
        """The drawn validation images; if the set has none, the training images that were not drawn."""
        if len(self.sources) > 1:
            raise InputError("evaluation.held_out=true evaluates no other set: evaluation.sets must be empty")
        if len(self.val_samples):
            return self.val_samples
        train, drawn = self.source.split("train"), set(self.train_samples.names)
        remaining = train.subset([i for i, name in enumerate(train.names) if name not in drawn])
        if not len(remaining):
            raise InputError("evaluation.held_out=true needs validation images, or training images that are not drawn")
        return remaining

    @cached_property
    def _loaders(self) -> Loaders:
        if self.preprocess is None:
            raise RuntimeError("set preprocess, the backbone's, before asking for images")
        return Loaders(self.preprocess, self.loading, self.train_samples, self._evaluated)


def _untrained(name: str, samples: Samples, trained: Samples) -> Samples:
    """The images of a set without those that are trained on, which are told; of ``test`` they are told alone.

    Two sets may be one folder: an evaluation of all images of a set whose test images were held out of its own.

    Raises:
        InputError: none is left.
    """
    seen = {file for file in _identities(trained) if file is not None}
    left = [i for i, file in enumerate(_identities(samples)) if file not in seen] if seen else range(len(samples))
    if (count := len(samples) - len(left)) == 0:
        return samples
    told = f"{count} of the {len(samples)} images of {name} are trained on"
    if name == IN_DOMAIN:  # what its source says is to be tested on
        log.warning("%s: its metrics are not those of new images", told)
        return samples
    if not left:
        raise InputError(f"evaluation set {told}: nothing is left to evaluate")
    log.warning("%s; they are left out of it", told)
    return samples.subset(left)


def _identities(samples: Samples) -> Iterator[tuple[int, int] | None]:
    """Device and number of each image's file, whatever path leads to it; None of what is not a file of its own."""
    for index in range(len(samples)):
        try:
            status = file.stat() if (file := samples.file(index)) else None
        except OSError:  # told when it is read
            status = None
        yield status and (status.st_dev, status.st_ino)


def _draw(source: Source, split: FewShotSplit) -> tuple[Samples, Samples]:
    drawn_from = source.drawn_from()
    train = drawn_from.split("train")
    has_val = "val" in drawn_from.splits
    val = drawn_from.split("val") if has_val else train  # cliplora draws both from the training images then
    if isinstance(split.shots, int) and split.short_classes == "error":
        # checked here, where classes have names: one without training images is not among the labels
        require_shots(train.labels, split.shots, dict(enumerate(drawn_from.class_names)))
    train_indices, val_indices = few_shot_split(
        train.labels,
        val.labels if has_val else None,
        split.shots,
        split.split_seed,
        split.protocol,
        split.short_classes,
    )
    return source.keep(train.subset(train_indices)), source.keep(val.subset(val_indices))
