"""The loaders of a run: its samples, as its settings and what the backbone expects of an image would have them."""

from collections.abc import Mapping

import torch
from torch.utils.data import DataLoader

from kravl.data.augmentation import CropFlip, unchanged
from kravl.data.cache import Cache
from kravl.data.check import check_images
from kravl.data.dataset import Batch, EvaluationImages, TrainingImages
from kravl.data.evaluation_cache import pixel_file, writing
from kravl.data.loading import Loading, ResumableLoader, evaluation_loader, processes
from kravl.data.on_device import CroppedImages, Crops, Finish
from kravl.data.sampling import EpochSampler
from kravl.data.source import Samples
from kravl.data.transforms import CentreCrop, Normalization, Preprocess


class Loaders:
    """What the data module hands out.

    Raises:
        InputError: an interpolation that is unknown, or that ``tensor`` transforms lack.
    """

    def __init__(
        self, preprocess: Preprocess, loading: Loading, train: Samples, evaluated: Mapping[str, Samples]
    ) -> None:
        self._loading = loading
        self._evaluated = evaluated
        self._crop = CentreCrop(preprocess.image_size, preprocess.resize, preprocess.interpolation)
        self._augment = CropFlip(preprocess.image_size, preprocess.interpolation, loading.transforms)
        self._normalize = Normalization(preprocess.mean, preprocess.std)
        self._cache = Cache(train, self._crop) if loading.augmentation == "none" else Cache(train)

    def check(self) -> None:
        """Decode every image, and keep what is decoded; see `check_images`."""
        with writing(self._loading.cache_root, self._evaluated, self._crop) as checked:
            check_images({"train": self._cache, **checked})

    def training(self) -> ResumableLoader:
        """Shuffled batches, at least ``min_batches`` an epoch; `Crops` where a GPU is to finish them, see `finish`."""
        loading, workers = self._loading, self._loading.workers()
        if workers:
            self._cache.fill()  # workers that are forked share it
        num_processes, rank = processes()
        draws = loading.min_batches * loading.batch_size * num_processes
        sampler = EpochSampler(len(self._cache), draws, loading.seed, num_processes, rank)
        images: TrainingImages | CroppedImages
        if loading.augmentation == "none":
            images = TrainingImages(self._cache, unchanged, self._normalize)
        elif loading.transforms == "tensor" and torch.cuda.is_available():
            images = CroppedImages(self._cache, self._augment)
        else:
            images = TrainingImages(self._cache, self._augment, self._normalize)
        return ResumableLoader(images, sampler, loading.batch_size, workers)

    def evaluation(self) -> dict[str, DataLoader[Batch]]:
        """Every image of each set once, in order."""
        loaders = {}
        for name, samples in self._evaluated.items():
            kept = pixel_file(self._loading.cache_root, samples, self._crop)
            written = kept if kept is not None and kept.open() else None
            images = EvaluationImages(samples, self._crop, self._normalize, written)
            loaders[name] = evaluation_loader(images, self._loading)
        return loaders

    def finish(self, batch: Batch | Crops) -> Batch:
        """A batch as the learner expects it, on the device that it has been moved to."""
        return Finish(self._augment, self._normalize)(batch) if isinstance(batch, Crops) else batch
