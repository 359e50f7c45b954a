"""Callbacks of a trainer: checkpoints, stopping on a signal, the learning curve."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from kravl.runtime.files import write_atomic
from kravl.runtime.signals import Interrupted, install, raise_if_stopped, stop_requested
from kravl.training.checkpoint import newest_first

NUM_CHECKPOINTS = 2  # the newest ones
CURVE = "curve.json"
MAX_POINTS = 200  # of the curve, besides the last step


def step_of_run(trainer: Trainer) -> int:
    """Optimiser steps that a run has made, those of earlier stages included."""
    return trainer.global_step + getattr(trainer.lightning_module, "steps_before", 0)


class Polling(Callback):
    """Stops an evaluation or a feature pass between two batches on request."""

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        install()  # replaces Lightning's handlers, just set, which talk to other processes inside a signal handler
        raise_if_stopped()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        raise_if_stopped()


class Checkpoints(Polling):
    """Saves the training state every so many optimiser steps, at the start, at the end and on a request to stop.

    The last two are kept. Each is saved after a complete optimiser step, never with partly accumulated gradients.

    Args:
        folder: where ``step=<number>.ckpt`` is saved.
        every: optimiser steps between two; 0: none between the start and the end.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self._saved = self._last = -1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        install()
        self._saved = self._last = step_of_run(trainer)
        if not trainer.ckpt_path:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, before = step_of_run(trainer), self._last
        self._last = step
        if step == before:  # gradients are being accumulated
            return
        stopping = (
            stop_requested()
            if trainer.world_size == 1
            else trainer.strategy.reduce_boolean_decision(stop_requested(), False)
        )
        if stopping or (self.every and step % self.every == 0):
            _count_epochs(trainer)
            self._save(trainer)
        if stopping:
            trainer._logger_connector.update_train_step_metrics()  # else this step would be in no tracker
            raise Interrupted(f"step {step}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if step_of_run(trainer) != self._saved:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._saved = step_of_run(trainer)
        trainer.save_checkpoint(self.folder / f"step={self._saved}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in newest_first(self.folder)[NUM_CHECKPOINTS:]:
                trainer.strategy.remove_checkpoint(old)


def _count_epochs(trainer: Trainer) -> None:
    """After resuming at the end of an epoch, Lightning 2.6 counts the next one as not started.

    A state saved within that epoch would then start it again.
    """
    progress = trainer.fit_loop.epoch_progress
    for count in (progress.current, progress.total):
        count.ready = count.started = trainer.current_epoch + 1  # type: ignore[attr-defined]


class LearningCurve(Callback):
    """Writes ``folder``/curve.json when a training, or a stage, ends; until then the curve is part of every checkpoint.

    ``loss`` (nats) is the mean over the steps since the previous point: that of a single small batch is noisy.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVE
        self.points: dict[str, list[float]] = {name: [] for name in ("step", "loss", "lr")}
        self._sum: Tensor | None = None  # stays on the device: reading it would stall every step
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points, self._sum, self._count = (state_dict[name] for name in ("points", "sum", "count"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = trainer.callback_metrics["train/loss"].detach()
        self._sum = loss.clone() if self._sum is None else self._sum.to(loss.device) + loss
        self._count += 1
        every = max(1, -(-int(trainer.estimated_stepping_batches) // MAX_POINTS))
        if trainer.global_step % every == 0 and step_of_run(trainer) > max(self.points["step"], default=0):
            self._add(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not on_train_end, which does not come where a checkpoint of the last step is resumed from
        if self._count:
            self._add(trainer)
        if trainer.is_global_zero:
            write_atomic(self.path, json.dumps(self.points, sort_keys=True) + "\n")

    def _add(self, trainer: Trainer) -> None:
        assert self._sum is not None
        self.points["step"].append(step_of_run(trainer))
        self.points["loss"].append(self._sum.item() / self._count)
        self.points["lr"].append(trainer.optimizers[0].param_groups[0]["lr"])
        self._sum, self._count = None, 0
