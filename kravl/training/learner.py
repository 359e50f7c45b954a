"""The LightningModule of a run: loss, step, optimiser and its schedule."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from kravl.runtime.dtypes import refuse_other_dtypes
from kravl.runtime.errors import InputError
from kravl.runtime.microbatch import MicroBatches
from kravl.training.checkpoint import check_progress
from kravl.training.fsdp import gather
from kravl.training.loss import Loss
from kravl.training.optim import OptimSettings, decay_exceptions, parameter_groups, schedule

STAGE = "stage"  # of a checkpoint, see `Part`


class DivergedError(RuntimeError):
    """The loss or the gradient is not finite; ``indices`` are those of the batch. The last checkpoint precedes it."""

    def __init__(self, message: str, indices: Sequence[int]) -> None:
        super().__init__(message)
        self.indices = list(indices)


@dataclass(frozen=True)
class Part:
    """Which of several stages of a run a learner trains.

    Args:
        number: from 0; a checkpoint has it.
        before: optimiser steps of the stages before.
        steps: of this one.
        trained: identities of all parameters that any stage trains: a checkpoint of each has them.
    """

    number: int
    before: int
    steps: int
    trained: frozenset[int]


class Learner(LightningModule):
    """Trains whatever parameters of ``classifier`` require a gradient, and saves only those and its ``statistics``.

    Args:
        classifier: images (b, 3, h, w) -> logits (b, classes); has ``head_parameters()`` and ``class_names``.
        optim: the optimiser's settings.
        seed: all randomness of a step follows from (seed, epoch, batch).
        loss: None is plain cross-entropy.
        statistics: names of buffers of ``classifier`` that training changes.
        part: of a run in several stages; None: the learner trains all of it.
    """

    strict_loading = False  # checkpoints deliberately lack the frozen weights

    def __init__(
        self,
        classifier: Any,
        optim: OptimSettings,
        seed: int,
        loss: Loss | None = None,
        statistics: Sequence[str] = (),
        part: Part | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.optim = optim
        self.seed = seed
        self.loss = loss or Loss()
        self.statistics = tuple(statistics)
        self.part = part
        self.steps_before = part.before if part else 0
        self.micro_batches = MicroBatches()
        self._trained: list[nn.Parameter] | None = None  # found in the first step: to look for them takes a millisecond
        self.started = False  # a state has been restored, if there is one, and training has begun
        # unchecked: torchmetrics looks for labels beyond the classes by sorting them, for which a GPU's step would wait
        self.accuracy = MulticlassAccuracy(len(classifier.class_names), average="micro", validate_args=False)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> trainable parameter, in the model's order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The trained tensors only, live; those of other stages too."""
        buffers = {f"classifier.{name}": self.classifier.get_buffer(name) for name in self.statistics}
        others = self.part.trained if self.part else ()
        kept = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad or id(p) in others}
        return kept | buffers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.part:
            checkpoint[STAGE] = self.part.number

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Inverse of `state_dict`. Raises InputError where the checkpoint trains other parameters."""
        if self._trainer is not None:  # it does so anyway, but later: what was trained in double would be rounded
            self._trainer.precision_plugin.convert_module(self)
        tensors = self.state_dict()
        current, saved = ({(name, *t.shape) for name, t in state.items()} for state in (tensors, state_dict))
        if difference := sorted(current ^ saved):
            raise InputError(f"the checkpoint trains other parameters than this run: {difference[:3]}")
        refuse_other_dtypes("the checkpoint", tensors, state_dict)
        for name, tensor in tensors.items():
            tensor.copy_(state_dict[name])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises InputError where an earlier release grouped the parameters otherwise; AdamW's state goes by groups.

        So does one whose counts are not those of a state.
        """
        saved = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
        if saved != (sizes := [len(group["params"]) for group in self._groups()]):
            raise InputError(
                f"the checkpoint is of an earlier release, whose weight decay went by other groups of parameters "
                f"({saved}, now {sizes}); overwrite=true starts the run again"
            )
        check_progress(checkpoint)

    def on_train_start(self) -> None:
        self.started, self._trained = True, None
        self.classifier.train()  # Lightning leaves every module as it was built, frozen ones in training mode too
        self.loss.start(self.trainer.accumulate_grad_batches, self.trainer.world_size)
        if self.global_step == 0:  # else restored: what loggers count on from
            self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.steps_before

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derived_seed(self.seed, self.current_epoch, batch_idx))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self._indices = batch.indices
        logits = self.classifier(batch.images) if self.micro_batches.size is None else self._microbatched(batch.images)
        loss, differentiated = self.loss(logits, batch.labels)
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item()}", f"batch {batch_idx}")
        self.accuracy(logits, batch.labels)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", self.accuracy, prog_bar=True, on_step=False, on_epoch=True)
        return differentiated

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self._trained = self._trained or list(self.trainable().values())
        gradients = [p.grad for p in self._trained if p.grad is not None]
        self.loss.rescale(gradients, self._mean_over_processes)
        if self.loss.l2_sp is not None:
            self.log("train/l2_sp", self.loss.l2_sp.add_gradient())
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # half precision: the scaler skips such steps and lowers its scale
        norm = gather(nn.utils.get_total_norm(gradients))
        if not torch.isfinite(norm):
            raise self._diverged(f"the norm of the gradient is {norm.item()}", "last batch")

    def _mean_over_processes(self, value: float) -> float:
        if self.trainer.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        return float(self.trainer.strategy.reduce(tensor, reduce_op="mean"))

    def _groups(self) -> list[dict[str, Any]]:
        head = {id(p) for p in self.classifier.head_parameters()}
        return list(parameter_groups(self.trainable().values(), head, decay_exceptions(self), self.optim))

    def _microbatched(self, images: Tensor) -> Tensor:
        if images.dim() == 2:  # features in place of images: nothing large is computed
            return self.classifier(images)
        return self.classifier.logits(self.micro_batches.encode_checkpointed(self.classifier.image_features, images))

    def _diverged(self, what: str, where: str) -> DivergedError:
        indices = self._indices.tolist()
        return DivergedError(
            f"{what} at step {self.global_step + self.steps_before}, epoch {self.current_epoch}, {where} "
            f"(images {indices[:8]}, ...); lower optim.lr or raise optim.warmup_steps",
            indices,
        )

    def configure_optimizers(self) -> Any:
        # fused: one pass over memory instead of twelve
        optimizer = torch.optim.AdamW(self._groups(), lr=self.optim.lr, fused=True)
        optimizer._step_supports_amp_scaling = False  # gradients are unscaled before they are clipped

        def factor(step: int) -> float:
            # at step 0, this property would set up the loader before a checkpoint can tell it where to resume
            total = self.part.steps if self.part else int(self.trainer.estimated_stepping_batches) if step else 1
            return schedule(step, total, self.optim.warmup_steps, self.optim.min_lr_ratio)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def derived_seed(*parts: int) -> int:
    """A 63-bit seed that depends on all ``parts`` and their order."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
