"""What the pretrained model says of evaluated images, which runs of one worker share: many cells have the same one.

It is found by all that decides it: every weight and every class of a module while the update is out, prompts as
tokens, images and labels, batches, and the settings of model and trainer. What trains is part of it, too: which kernel
computes a layer may go by it. Only where one process evaluates images on a CPU; elsewhere every run evaluates anew.
"""

import hashlib
from collections.abc import Iterator, Mapping

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import sha256
from kravl.config.schema import Config
from kravl.evaluation.predict import Batches, EvaluationLoaders, Predictions, encode
from kravl.evaluation.wise_ft import MAX_IN_MEMORY
from kravl.run.build import Run
from kravl.runtime.shared import Key, is_sharing, keep, known, shared

DERIVED = ("_text_features", "_further_features")  # buffers of a classifier: they follow from weights and prompts
Found = Mapping[str, Predictions]  # by set


class ZeroShot:
    """The pretrained model's predictions of a run: `known` where an earlier run had the same, else to be kept.

    Where nothing before the head trains, `features` of the images as well.

    Args:
        cfg: the run's; with the run itself it says what the predictions depend on.
    """

    def __init__(self, cfg: Config, trainer: Trainer, run: Run) -> None:
        self._key: Key | None = None
        on_cpu = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"
        if not is_sharing() or not on_cpu or run.classifier.feature_head is not None:
            return
        if (images := _images(run)) is None:
            return
        settings = repr((cfg.backbone.build, cfg.trainer, cfg.loading, cfg.data.long_prompts, str(trainer.precision)))
        with run.adapters.disable_adapters():
            self._key = ("zero-shot", settings, images, _model(run), torch.get_num_threads())
            if self.known is not None:
                run.classifier.eval().prepare()  # tells of classes with equal text features, as an evaluation does

    @property
    def known(self) -> Found | None:
        found: Found | None = None if self._key is None else known(self._key)
        return found

    def keep(self, found: Found) -> None:
        """Keep what this run has found, for later ones."""
        if self._key is not None:
            keep(self._key, found, sum(column.nbytes for rows in found.values() for column in rows))

    def features(
        self, trainer: Trainer, run: Run, loaders: EvaluationLoaders
    ) -> EvaluationLoaders | Mapping[str, Batches]:
        """The ``loaders``' batches with the features that every run has which trains a head alone; else the loaders."""
        too_many = sum(map(len, run.data.evaluated.values())) > MAX_IN_MEMORY
        if self._key is None or too_many or not run.classifier.features_are_fixed():
            return loaders
        return shared(("features", self._key), lambda: encode(trainer, run.classifier, loaders), _num_bytes)


def _num_bytes(features: Mapping[str, Batches]) -> int:
    return sum(tensor.nbytes for batches in features.values() for batch in batches for tensor in batch)


def _images(run: Run) -> str | None:
    """A digest of images, labels and columns of every set; None where what an image depends on is not known."""
    digest = hashlib.sha256(repr((run.data.transform(), run.data.evaluation_classes(run.selective))).encode())
    for name, samples in run.data.evaluated.items():
        digest.update(repr(name).encode())
        for index, label in enumerate(samples.labels):
            if (image := samples.identity(index)) is None:
                return None
            digest.update(repr((label, image)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _model(run: Run) -> str:
    """A digest of the model as it is now, without its adapters."""
    modules = ((name, f"{type(m).__module__}.{type(m).__qualname__}") for name, m in run.classifier.named_modules())
    adapted = {id(tensor) for adapter in run.adapters.adapters.values() for tensor in _tensors(adapter)}
    tensors = {
        f"{name} {tensor.requires_grad}": tensor
        for name, tensor in _named_tensors(run)
        if id(tensor) not in adapted and name not in DERIVED
    }
    structure = repr([(name, kind) for name, kind in modules if ".adapters" not in name])
    return f"{sha256(tensors)} {hashlib.sha256(structure.encode()).hexdigest()}"


def _tensors(adapter: Adapter) -> Iterator[Tensor]:
    yield from adapter.parameters()
    yield from adapter.buffers()


def _named_tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    yield from run.classifier.named_parameters()
    yield from run.classifier.named_buffers()
