"""Lightning's Trainer with kravl's checkpoints, progress bar and spectra; every other argument is the user's."""

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from kravl.checkpoint import SafeCheckpointIO, newest_first
from kravl.precision import chosen_precision
from kravl.runtime.errors import InputError, first_line, unknown
from kravl.runtime.signals import Interrupted, listen, poll, requested
from kravl.sharding import ShardedStrategy

# Lightning's own, of no use to a user: a deprecated call, and advice that does not fit small sets
NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '\w+' does not have many workers",
    r"Precision bf16-mixed is not supported by the model summary",
    r"The number of training batches .* is smaller than the logging interval",
)
KEPT = 2  # checkpoints
SHARDED = ("fsdp_", "deepspeed", "model_parallel", "xla_fsdp")
FSDP = "fsdp"
OURS = {
    "max_epochs": "optim.epochs",
    "max_steps": "optim.steps",
    "logger": "tracking",
    "callbacks": "kravl/run.py",
    "default_root_dir": "runs",
    "enable_checkpointing": "checkpoint_every",
    "plugins": "kravl/run.py",
}


class Polling(Callback):
    """Leaves an evaluation, or a pass that computes features, between two batches when asked to end."""

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        listen()  # Lightning's own handlers, set a moment ago, talk to other processes from inside of a signal
        poll()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        poll()


class Checkpoints(Polling):
    """The last two states: every so many optimiser steps, at the start, at the end, and when asked to end.

    All are taken after a whole optimiser step, so that no gradient is half summed up.

    Args:
        folder: gets ``step=<number>.ckpt``.
        every: optimiser steps between two.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self._saved = self._last = -1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        listen()
        self._saved = self._last = trainer.global_step
        if not trainer.ckpt_path:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, before = trainer.global_step, self._last
        self._last = step
        if step == before:  # gradients are being accumulated
            return
        asked = requested() if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(requested(), False)
        if asked or step % self.every == 0:
            _count_epochs(trainer)
            self._save(trainer)
        if asked:
            raise Interrupted(f"step {step}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._saved:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.folder / f"step={self._saved}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in newest_first(self.folder)[KEPT:]:
                trainer.strategy.remove_checkpoint(old)


def _count_epochs(trainer: Trainer) -> None:
    """Of a run that went on from the end of an epoch, Lightning 2.6 counts the next one as not begun.

    A state saved within it would then begin the epoch once more.
    """
    progress = trainer.fit_loop.epoch_progress
    for count in (progress.current, progress.total):
        count.ready = count.started = trainer.current_epoch + 1  # type: ignore[attr-defined]


def limits(epochs: int | None, steps: int | None, steps_per_shot: int | None, shots: int | None) -> dict[str, int]:
    """How long to train, as Trainer's arguments: ``steps``, else ``steps_per_shot`` times ``shots``, else ``epochs``.

    Raises:
        InputError: none of them is given, or one is negative.
    """
    if steps is None and steps_per_shot is not None:
        if shots is None:
            raise InputError("optim.steps_per_shot needs shots; with shots=null give optim.steps")
        steps = steps_per_shot * shots
    if (length := epochs if steps is None else steps) is None or length < 0:
        raise InputError(f"optim.epochs={epochs}, optim.steps={steps}: one of them must be a number from 0 up")
    return {"max_epochs": length} if steps is None else {"max_steps": length, "max_epochs": -1}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that Trainer does not have, or that kravl holds itself or cannot work with."""
    if str(settings.get("strategy")).startswith(SHARDED):
        raise InputError(
            f"trainer.strategy={settings['strategy']} splits weights in a way that kravl cannot measure and save; "
            f"take ddp, or {FSDP} where memory is short"
        )
    if settings.get("strategy") == FSDP and str(settings.get("precision")).startswith("16"):
        raise InputError(
            f"trainer.strategy={FSDP} with trainer.precision={settings['precision']}: its scaler would see a part of "
            "the gradient in each process; take bf16-mixed"
        )
    legal = inspect.signature(Trainer).parameters
    for key in settings:
        if key in OURS:
            raise InputError(f"trainer.{key} is set through {OURS[key]}")
        if key not in legal:
            raise unknown("key", f"trainer.{key}", [f"trainer.{name}" for name in legal if name not in OURS])


def make_trainer(
    settings: Mapping[str, Any],
    length: Mapping[str, Any],
    folder: Path,
    logger: Logger | bool,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """A Trainer with the user's ``settings`` (any argument of its own) and its ``length`` from `limits`.

    ``precision`` may also be auto, see `chosen_precision`.

    Raises:
        InputError: an argument that Trainer does not have, that another setting of kravl holds, or a wrong value.
    """
    _quiet()
    check_settings(settings)
    bar = [RichProgressBar(leave=True)] if settings.get("enable_progress_bar", True) else []
    # it finds bugs, changes no result, and costs 4 % of a small step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    strategy = {"strategy": ShardedStrategy()} if settings.get("strategy") == FSDP else {}
    try:
        return Trainer(
            **{**settings, **strategy, "precision": chosen_precision(settings)},
            **length,
            default_root_dir=folder,
            logger=logger,
            callbacks=[*callbacks, *bar],
            plugins=[SafeCheckpointIO()],
            enable_checkpointing=False,  # Lightning's own: kravl's are a callback,
        )
    except (MisconfigurationException, ValueError, TypeError, KeyError) as error:
        raise InputError(f"trainer: {first_line(error)}") from error


def _quiet() -> None:
    """Keep Lightning's advertisement and the warnings of NOISE out of every run's output."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()
