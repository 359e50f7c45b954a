"""Logits of images without labels, in the precision that a run was evaluated in."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kravl.backbones.classifier import Classifier
from kravl.backbones.heads.head import Head
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.data.loading.unlabelled import Decoded, image_loader
from kravl.run.finished.restore import LoadedRun
from kravl.runtime.dtypes import TRUE
from kravl.runtime.errors import InputError
from kravl.runtime.microbatch import MicroBatches
from kravl.runtime.signals import raise_if_stopped
from kravl.training.trainer import precision_of

MIXED = {"16-mixed": torch.float16, "16": torch.float16, "bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16}
BATCH_SIZE = "--batch-size"
NOT_FINITE = "its logits are not finite"


class Scored(NamedTuple):
    """One file: logits (classes,) in float32 on the CPU, or the reason why there are none."""

    path: str
    logits: Tensor | None
    error: str | None


def check_alpha(cfg: Config, alpha: float) -> None:
    """Raise InputError where ``alpha`` is no point of a run's WiSE-FT curve, see `Scorer.of_run`; nothing is loaded."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha}: from 0 (the pretrained weights) to 1 (the adapted ones)")
    if alpha == 0 and not resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot:
        raise InputError(f"alpha=0: {cfg.backbone.name} knows no class without training")
    if 0 < alpha < 1 and (reason := _no_curve(cfg)):
        raise InputError(f"alpha={alpha:g}: {reason}; it may be 1 (the adapted model), or 0 (the pretrained one)")


def _no_curve(cfg: Config) -> str | None:
    """Why a run has no model between the pretrained and the adapted one; None where it has."""
    if cfg.context_tokens:
        return f"a learned context (context_tokens={cfg.context_tokens}) takes the place of words: none is between them"
    if cfg.head and not (head := resolve(cfg.head, Head, cfg.plugins)).starts_at_zero_shot:
        return f"{head.__name__} does not start at zero-shot: there is no WiSE-FT curve of its weights"
    return None


def evaluated_in(run: LoadedRun) -> str:
    """The precision that an evaluation of ``run`` would have on the device where its model is."""
    device = next(run.classifier.parameters()).device
    return str(precision_of({**run.cfg.trainer, "accelerator": "cpu" if device.type == "cpu" else "auto"}))


class Scorer:
    """Logits of images under the current weights of ``classifier``, in batches that are halved where memory runs out.

    Args:
        precision: one of Trainer's, in which evaluation would compute them.
        columns: of its logits that are returned, in this order; None: all.
    """

    def __init__(
        self, classifier: Classifier, precision: str = "32-true", columns: Sequence[int] | None = None
    ) -> None:
        self.classifier, self._columns = classifier.eval(), slice(None) if columns is None else list(columns)
        self._device = next(classifier.parameters()).device
        self._mixed, self._dtype = MIXED.get(precision), TRUE.get(precision, torch.float32)
        self._micro_batches = MicroBatches()
        with torch.no_grad():
            classifier.prepare()

    @classmethod
    def of_run(
        cls, run: LoadedRun, alpha: float = 1.0, precision: str | None = None, columns: Sequence[int] | None = None
    ) -> "Scorer":
        """That of a run whose adapters are merged here, at ``alpha`` of their update.

        Args:
            precision: in place of the run's own.
            columns: as of the class.

        Raises:
            InputError: ``alpha`` is outside 0 to 1, 0 of a model that knows no class untrained, or between the two of
                one that has no WiSE-FT curve.
        """
        check_alpha(run.cfg, alpha)
        run.adapters.merge(alpha)
        return cls(run.classifier, precision or evaluated_in(run), columns)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of the columns, in float32 on the CPU; images (b, 3, h, w) are normalised.

        Raises:
            OutOfMemory: memory does not suffice for one image.
        """
        context: Any = torch.autocast(self._device.type, self._mixed) if self._mixed else nullcontext()
        with torch.no_grad(), context:
            on_device = images.to(self._device, self._dtype, non_blocking=True)
            features = self._micro_batches.encode(self.classifier.image_features, on_device, BATCH_SIZE)
            return self.classifier.logits(features)[:, self._columns].float().cpu()

    def files(self, paths: Iterable[str], batch_size: int, workers: int = 0) -> Iterator[list[Scored]]:
        """Each batch of the files ``paths``, in their order.

        Raises:
            Interrupted: the process was asked to stop, between two batches.
        """
        for batch in image_loader(paths, self.classifier.preprocess, batch_size, workers):
            raise_if_stopped()
            yield self.scored(batch)

    def scored(self, batch: Decoded) -> list[Scored]:
        """Logits of each of a batch, or why there are none."""
        rows = iter(self(batch.images) if len(batch.images) else ())
        scored = []
        for path, error in zip(batch.paths, batch.errors, strict=True):
            logits = next(rows) if error is None else None
            if logits is not None and not logits.isfinite().all():
                logits, error = None, NOT_FINITE
            scored.append(Scored(path, logits, error))
        return scored
