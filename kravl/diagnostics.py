"""How ΔW grows: its effective and stable rank and its norm at every site, logged while training."""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from kravl.errors import InputError

Statistics = Mapping[str, Mapping[str, float]]  # site -> quantity -> value


class SpectrumMonitor(Callback):
    """Logs ``delta/<site>/<quantity>`` and ``delta/<quantity>``, the mean over sites, by optimiser step.

    Args:
        statistics: the quantities of every site as they are now.
        every: optimiser steps between two records; the last step has one in any case, 0 is that one only.

    Raises:
        InputError: ``every`` is negative.
    """

    def __init__(self, statistics: Callable[[], Statistics], every: int) -> None:
        if every < 0:
            raise InputError(f"spectra every {every} steps: give a number of steps, or 0 for the end only")
        self.statistics = statistics
        self.every = every
        self._logged_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every and trainer.global_step % self.every == 0:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        # batches that only accumulate gradients come by with the step of the last update
        if trainer.global_step == self._logged_step or not trainer.loggers or not trainer.is_global_zero:
            return
        self._logged_step = trainer.global_step
        if values := flatten(self.statistics()):  # a linear probe has no sites
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)


def flatten(statistics: Statistics) -> dict[str, float]:
    """``delta/<site>/<quantity>`` of every site, then the mean over sites of each quantity as ``delta/<quantity>``."""
    flat = {f"delta/{site}/{name}": value for site, values in statistics.items() for name, value in values.items()}
    names = dict.fromkeys(name for values in statistics.values() for name in values)
    means = {f"delta/{name}": fmean(values[name] for values in statistics.values()) for name in names}
    return {**flat, **means}
