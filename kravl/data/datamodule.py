"""A few-shot training set, its test set, and the sets it is evaluated on out of distribution."""

from collections.abc import Mapping
from dataclasses import dataclass

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from kravl.data.check import check_images
from kravl.data.dataset import EvaluationImages, TrainingImages
from kravl.data.evaluation_set import match_classes
from kravl.data.fewshot import few_shot_split, require_shots
from kravl.data.loading import Batch, Loading, ResumableLoader, evaluation_loader, processes
from kravl.data.sampling import EpochSampler
from kravl.data.source import Samples, Source
from kravl.data.transforms import Preprocess, Transform, make_transforms
from kravl.errors import InputError

IN_DOMAIN = "test"


@dataclass(frozen=True)
class Plan:
    """Which images are drawn; see `fewshot.few_shot_split`."""

    shots: int | None = 16
    split_seed: int = 1
    protocol: str = "coop"
    short_classes: str = "error"


class FewShotDataModule(LightningDataModule):
    """The images of one run.

    ``train_samples`` and ``val_samples`` are the images drawn, ``split_sha256`` says which training images they are,
    in which order. Nothing is decoded before `check` or a loader asks for it. Set ``preprocess``, what the backbone
    expects of an image, before asking for a loader.

    Args:
        evaluation: sets besides ``source``'s own test images, by the name of their metrics.

    Raises:
        InputError: a class with too few images, an evaluation set with classes that are not trained, or a split that
            a source does not have.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        loading: Loading,
        evaluation: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__()
        if evaluation and IN_DOMAIN in evaluation:
            raise InputError(f"an evaluation set cannot be named {IN_DOMAIN!r}: that is the training set's own")
        self.preprocess: Preprocess | None = None
        self.source = source
        self.loading = loading
        self.train_samples, self.val_samples = _draw(source, plan)
        self.split_sha256 = self.train_samples.sha256()
        self._sources = {IN_DOMAIN: source, **(evaluation or {})}
        self._classes = {name: match_classes(s, source.class_ids) for name, s in self._sources.items()}
        self._evaluated = {name: s.split("test") for name, s in self._sources.items()}

    def check(self) -> None:
        """Decode every image that the run will need.

        Raises:
            InputError: some cannot be read; set, path and reason of up to 20, and how many there are.
        """
        check_images({"train": self.train_samples, **self._evaluated})

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented batches of the drawn images, at least ``min_batches`` an epoch."""
        workers = self.loading.workers()
        images = TrainingImages(self.train_samples, self._transforms()[0])
        if workers:
            images.cache.fill()
        num_processes, rank = processes()
        draws = self.loading.min_batches * self.loading.batch_size * num_processes
        sampler = EpochSampler(len(images), draws, self.loading.seed, num_processes, rank)
        return ResumableLoader(images, sampler, self.loading.batch_size, workers)

    def evaluation_loaders(self) -> dict[str, DataLoader[Batch]]:
        """``test`` first, then the evaluation sets as given; ``loader.dataset.samples`` are the images."""
        _, transform = self._transforms()
        return {
            name: evaluation_loader(EvaluationImages(samples, transform), self.loading)
            for name, samples in self._evaluated.items()
        }

    def evaluation_classes(self) -> dict[str, tuple[int, ...] | None]:
        """For each loader: where its classes are among the trained ones; None for all of them."""
        return dict(self._classes)

    def _transforms(self) -> tuple[Transform, Transform]:
        if self.preprocess is None:
            raise RuntimeError("set preprocess, which the backbone gives, before asking for batches")
        return make_transforms(self.preprocess, self.loading.augmentation)


def _draw(source: Source, plan: Plan) -> tuple[Samples, Samples]:
    train = source.split("train")
    val = source.split("val") if "val" in source.splits else train.subset(())
    if plan.shots is not None and plan.short_classes == "error":
        # asked here by name: a class without any training image is not among the labels
        require_shots(train.labels, plan.shots, dict(enumerate(source.class_names)))
    chosen, chosen_val = few_shot_split(
        train.labels, val.labels, plan.shots, plan.split_seed, plan.protocol, plan.short_classes
    )
    return train.subset(chosen), val.subset(chosen_val)
