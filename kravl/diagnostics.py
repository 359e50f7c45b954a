"""How ΔW grows: the spectra of every site, logged and kept while training."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Protocol

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from kravl.runtime.errors import InputError
from kravl.sharding import whole_weights
from kravl.trace import Statistics, Trace

log = logging.getLogger(__name__)
Histograms = Callable[[Mapping[str, Sequence[float]], int], None]


class Spectra(Protocol):
    """What is measured: the quantities of every site as they are now, and its singular values."""

    def quantities(self) -> Statistics: ...

    def singular_values(self) -> Mapping[str, Tensor]: ...


class SpectrumMonitor(Callback):
    """Logs ``delta/<site>/<quantity>`` and ``delta/<quantity>``, the mean over sites, by optimiser step.

    Args:
        spectra: measures the sites.
        every: optimiser steps between two records; the last step has one in any case, 0 is that one only.
        trace: the file that keeps them, and the singular values at the end.
        histograms: logs ``spectrum/<quantity>`` over sites and, at the end, ``spectrum/<site>`` of singular values.

    ``seconds`` is what it has cost so far.

    Raises:
        InputError: ``every`` is negative.
    """

    def __init__(self, spectra: Spectra, every: int, trace: Trace, histograms: Histograms) -> None:
        if every < 0:
            raise InputError(f"spectra every {every} steps: give a number of steps, or 0 for the end only")
        self.spectra, self.every, self.trace, self.histograms = spectra, every, trace, histograms
        self.seconds = 0.0
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.trace.begin(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every and trainer.global_step % self.every == 0:
            with whole_weights(trainer):
                self._record(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with whole_weights(trainer):
            self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        self._record(trainer)
        if not trainer.is_global_zero or not self.trace.steps:
            return
        begin = time.perf_counter()
        values = self.spectra.singular_values()
        self.trace.finish(values)
        self.histograms({f"spectrum/{site}": v.tolist() for site, v in values.items()}, trainer.global_step)
        self.seconds += time.perf_counter() - begin
        log.info("spectra of %d sites at %d steps took %.1f s", len(values), len(self.trace.steps), self.seconds)

    def _record(self, trainer: Trainer) -> None:
        # batches that only accumulate gradients come by with the step of the last update
        if trainer.global_step == self._logged_step or not trainer.is_global_zero:
            return
        begin = time.perf_counter()
        step = self._logged_step = trainer.global_step
        if statistics := self.spectra.quantities():  # a linear probe has no sites
            self.trace.add(step, statistics)
            for logger in trainer.loggers:
                logger.log_metrics(flatten(statistics), step=step)
            self.histograms({f"spectrum/{name}": values for name, values in by_quantity(statistics).items()}, step)
        self.seconds += time.perf_counter() - begin


def by_quantity(statistics: Statistics) -> dict[str, list[float]]:
    """Quantity -> its value at every site."""
    names = dict.fromkeys(name for values in statistics.values() for name in values)
    return {name: [values[name] for values in statistics.values()] for name in names}


def flatten(statistics: Statistics) -> dict[str, float]:
    """``delta/<site>/<quantity>`` of every site, then the mean over sites of each quantity as ``delta/<quantity>``."""
    flat = {f"delta/{site}/{name}": value for site, values in statistics.items() for name, value in values.items()}
    return flat | {f"delta/{name}": fmean(values) for name, values in by_quantity(statistics).items()}
