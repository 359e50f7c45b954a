"""Lightning's Trainer with kravl's checkpoints, progress bar and spectra; every other argument is the user's."""

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from kravl.checkpoint import SafeCheckpointIO
from kravl.errors import InputError, first_line, unknown

# Lightning's own, of no use to a user: a deprecated call, and advice that does not fit small sets
NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '\w+' does not have many workers",
    r"Precision bf16-mixed is not supported by the model summary",
    r"The number of training batches .* is smaller than the logging interval",
)
OURS = {
    "max_epochs": "optim.epochs",
    "max_steps": "optim.steps",
    "logger": "tracking",
    "callbacks": "kravl/run.py",
    "default_root_dir": "runs",
    "enable_checkpointing": "checkpoint_every",
    "plugins": "kravl/run.py",
}


class Checkpoints(ModelCheckpoint):
    """The last two states, every so many steps, and once more when a scheduler asks the process to end."""

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="{step}",
            monitor="step",
            mode="max",
            save_top_k=2,
            every_n_train_steps=every,
            save_on_exception=True,
        )

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        # SIGTERM is raised between batches; any other exception may leave a half-made or not-a-number step
        if isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)


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
    """Raise InputError for an argument that Trainer does not have, or that another setting of kravl holds."""
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

    Raises:
        InputError: an argument that Trainer does not have, that another setting of kravl holds, or a wrong value.
    """
    _quiet()
    check_settings(settings)
    bar = [RichProgressBar(leave=True)] if settings.get("enable_progress_bar", True) else []
    # it finds bugs, changes no result, and costs 4 % of a small step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keeps = any(isinstance(callback, Checkpoints) for callback in callbacks)
    try:
        return Trainer(
            **settings,
            **length,
            default_root_dir=folder,
            logger=logger,
            callbacks=[*callbacks, *bar],
            plugins=[SafeCheckpointIO()],
            enable_checkpointing=keeps,
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
