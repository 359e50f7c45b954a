"""Features of a run's images, each computed once: read from the cache folder where they are kept."""

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import PIL
import torch
import torchvision
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kravl.backbones.heads.head import Head
from kravl.data.loading.feature_cache import GB, FeatureStore, images_identity
from kravl.data.source import Samples
from kravl.evaluation.predict import Batches, EvaluationLoaders, encode, image_features
from kravl.evaluation.wise_ft import MAX_IN_MEMORY
from kravl.run.build import Run
from kravl.run.inputs import pretrained_sha256
from kravl.runtime.errors import InputError
from kravl.runtime.shared import available_memory

BYTES = 4  # of a number
_digests: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # of weights, which take a second to read


def training_features(trainer: Trainer, run: Run, head: Head) -> Tensor:
    """Features (n, views, d) of the drawn images, in their order.

    Raises:
        InputError: they do not fit into memory, or trainer.limit_test_batches leaves some out.
    """
    samples, augmented = run.data.train_samples, run.data.loading.augmentation != "none"
    views = head.views if augmented else 1
    loader = run.data.views(views, head.least_area)
    width = head.width
    refuse_too_many(len(samples), views, width, available_memory())
    transform = f"{views} x {run.data.transform(head.least_area if augmented else None)}"
    every = _stored(trainer, run, samples, transform, views, lambda: image_features(trainer, run.classifier, loader))
    if len(every) != views * len(samples):
        raise InputError(
            f"a head is fitted on all {views * len(samples)} features, and {len(every)} were computed; leave out "
            "trainer.limit_test_batches"
        )
    return every.reshape(views, len(samples), -1).transpose(0, 1)


def refuse_too_many(images: int, views: int, width: int, memory: int | None) -> None:
    """Raise InputError where features of so many numbers do not fit into so many bytes."""
    needed = 2 * BYTES * images * views * width  # as they are computed, and together
    if memory is not None and needed > memory:
        raise InputError(
            f"the features of {images} images x {views} views x {width} numbers take {needed / GB:.2f} GB, and "
            f"{memory / GB:.2f} GB of memory are free; lower head.views or shots, or pass loading.augmentation=none"
        )


def validation_features(trainer: Trainer, run: Run) -> Tensor:
    """Features (n, d) of the validation images that were drawn."""
    loader = run.data.validation()
    return _stored(
        *(trainer, run, run.data.val_samples, run.data.transform(), 1),
        lambda: image_features(trainer, run.classifier, loader),
    )


def evaluation_features(trainer: Trainer, run: Run) -> EvaluationLoaders | Mapping[str, Batches]:
    """Batches of each evaluated set with features in place of the images, as `encode` makes them.

    The images themselves where several processes share those of a set, or where there are too many for memory.
    """
    loaders = run.data.evaluation_loaders()
    if trainer.world_size > 1 or sum(map(len, run.data.evaluated.values())) > MAX_IN_MEMORY:
        return loaders
    return {name: _evaluated(trainer, run, name, loader) for name, loader in loaders.items()}


def _evaluated(trainer: Trainer, run: Run, name: str, loader: DataLoader) -> Batches:
    samples = run.data.evaluated[name]

    def compute() -> Tensor:
        return torch.cat([features for features, _, _ in encode(trainer, run.classifier, {name: loader})[name]])

    features = _stored(trainer, run, samples, run.data.transform(), 1, compute)
    batches, size = Batches(), run.data.loading.eval_batch_size
    indices, labels = torch.arange(len(features)), torch.tensor(samples.labels[: len(features)])
    # in the loader's batches: a product's last bits go by its shape
    for part in zip(features.split(size), labels.split(size), indices.split(size), strict=True):
        batches.add(*part)
    return batches


def _stored(
    trainer: Trainer, run: Run, samples: Samples, transform: str, views: int, compute: Callable[[], Tensor]
) -> Tensor:
    """Features (views * n, d): kept ones where there are some."""
    loading, classifier, head = run.data.loading, run.classifier, run.classifier.feature_head
    assert head is not None
    store = FeatureStore(loading.cache_root, loading.feature_cache_gb)
    if store.folder is None or trainer.world_size > 1:  # of several processes none may wait for another's lock
        return compute()
    if classifier not in _digests:
        _digests[classifier] = pretrained_sha256(run.model)
    key = {
        "weights": _digests[classifier],
        "model": str(classifier.provenance()),
        "images": images_identity(samples),
        "transform": transform,
        "head": "before projection" if head.before_projection else "features",
        "batch": loading.eval_batch_size,
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
        "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
    }
    return store.get(key, (views * len(samples), head.width), compute)
