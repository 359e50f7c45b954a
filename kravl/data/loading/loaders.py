"""The data loaders of a run, from its samples, its settings and what the backbone expects of an image."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kravl.data.loading.cache import Cache, check_images
from kravl.data.loading.dataset import (
    Augment,
    Batch,
    CroppedImages,
    Crops,
    EvaluationImages,
    FinishCrops,
    TrainingFeatures,
    TrainingImages,
)
from kravl.data.loading.pixel_cache import pixel_file, writing
from kravl.data.loading.resumable import (
    LoadingSettings,
    ResumableLoader,
    evaluation_loader,
    ordered_loader,
    processes,
    require_handles,
)
from kravl.data.loading.samplers import AugmentedIndex, EpochSampler
from kravl.data.loading.transforms import CentreCrop, CropFlip, Normalization, PreprocessLike, unchanged
from kravl.data.source import Samples


class Loaders:
    """The loaders that the data module returns.

    Raises:
        InputError: an interpolation that is unknown, or that ``tensor`` transforms lack; too few file handles.
    """

    def __init__(
        self, preprocess: PreprocessLike, loading: LoadingSettings, train: Samples, evaluated: Mapping[str, Samples]
    ) -> None:
        require_handles(loading)
        self._preprocess, self._loading = preprocess, loading
        self._evaluated = evaluated
        self._crop = CentreCrop.of(preprocess)
        self._augment = CropFlip(preprocess.image_size, preprocess.interpolation, loading.transforms)
        self._normalize = Normalization(preprocess.mean, preprocess.std)
        self._finish = FinishCrops(self._augment, self._normalize)
        self._cache = Cache(train, self._crop) if loading.augmentation == "none" else Cache(train)

    def check(self, training: bool = True) -> None:
        """Decode every image, or only the evaluated ones, and cache what is decoded; see `check_images`."""
        with writing(self._loading.cache_root, self._evaluated, self._crop) as checked:
            check_images({"train": self._cache, **checked} if training else checked)

    def training(self, features: Tensor | None = None) -> ResumableLoader:
        """Shuffled batches, at least ``min_batches`` per epoch; `Crops` where a GPU is to finish them, see `finish`.

        ``features`` (n, d) stand for the images where they are given.
        """
        loading, workers = self._loading, self._loading.workers() if features is None else 0
        if workers:
            self._cache.fill()  # forked workers share it
        num_processes, rank = processes()
        draws = loading.min_batches * loading.batch_size * num_processes
        sampler = EpochSampler(len(self._cache), draws, loading.seed, num_processes, rank)
        return ResumableLoader(self._training_set(features), sampler, loading.batch_size, workers)

    def repeated(self) -> DataLoader[Batch] | None:
        """The training images in order, if every epoch shows the same pixels of them."""
        if self._loading.augmentation != "none":
            return None
        return self._ordered(unchanged, [0] * len(self._cache))

    def views(self, count: int, least_area: float) -> DataLoader[Batch]:
        """``count`` augmented views of each training image, one view of all of them after the other.

        A view shows a random share of the image from ``least_area`` up, mirrored or not. It follows from the image's
        name and its number alone: every run that asks has the same.
        """
        names = self._cache.samples.names
        seeds = [derived_seed(view, name) for view in range(count) for name in names]
        return self._ordered(self._view(least_area), seeds)

    def in_order(self, samples: Samples) -> DataLoader[Batch]:
        """Images under the evaluation transform, all of them in every process."""
        repeated = Loaders(self._preprocess, replace(self._loading, augmentation="none"), samples, {}).repeated()
        assert repeated is not None
        return repeated

    def describe(self, least_area: float | None = None) -> str:
        """What decides an image's pixels: the transform of evaluation, or of views as `views` takes them."""
        transform = self._crop if least_area is None else self._view(least_area)
        return f"{transform} {self._normalize.mean.ravel().tolist()} {self._normalize.std.ravel().tolist()}"

    def _view(self, least_area: float) -> CropFlip:
        return replace(self._augment, scale=(least_area, 1.0))

    def _ordered(self, augment: Augment, seeds: Sequence[int]) -> DataLoader[Batch]:
        images, size = TrainingImages(self._cache, augment, self._normalize), len(self._cache)
        return ordered_loader(images, [AugmentedIndex(i % size, seed) for i, seed in enumerate(seeds)], self._loading)

    def _training_set(self, features: Tensor | None) -> TrainingImages | CroppedImages | TrainingFeatures:
        if features is not None:
            return TrainingFeatures(self._cache.samples, features)
        if self._loading.augmentation == "none":
            return TrainingImages(self._cache, unchanged, self._normalize)
        if self._loading.transforms == "tensor" and torch.cuda.is_available():
            return CroppedImages(self._cache, self._augment)
        return TrainingImages(self._cache, self._augment, self._normalize)

    def evaluation(self) -> dict[str, DataLoader[Batch]]:
        """Every image of each set once, in order."""
        loaders = {}
        for name, samples in self._evaluated.items():
            cached = pixel_file(self._loading.cache_root, samples, self._crop)
            readable = cached if cached is not None and cached.open() else None
            images = EvaluationImages(samples, self._crop, self._normalize, readable)
            loaders[name] = evaluation_loader(images, self._loading)
        return loaders

    def finish(self, batch: Batch | Crops) -> Batch:
        """A batch as the learner expects it, on the device that it has been moved to."""
        return self._finish(batch) if isinstance(batch, Crops) else batch


def derived_seed(view: int, name: str) -> int:
    """A 63-bit seed of the view with this number of the image with this name."""
    digest = hashlib.sha256(f"{view}/{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
