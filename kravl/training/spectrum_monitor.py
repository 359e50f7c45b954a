"""Spectra of the update during training, logged and written to a file."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, refuse_endless, write_atomic
from kravl.training.callbacks import step_of_run
from kravl.training.fsdp import gathered_weights

SPECTRA_FILE = "spectra.safetensors"
VALUES = "singular_values."
Statistics = Mapping[str, Mapping[str, float]]  # site -> quantity -> value
log = logging.getLogger(__name__)
Histograms = Callable[[Mapping[str, Sequence[float]], int], None]


@dataclass
class Trace:
    """``path`` and what was recorded: step -> site -> quantity -> value, and site -> singular values at the end."""

    path: Path
    steps: dict[int, Statistics] = field(default_factory=dict)
    singular_values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def end(self) -> Statistics:
        """The quantities of the last step; empty if nothing was recorded."""
        return self.steps[max(self.steps)] if self.steps else {}

    def resume(self, step: int) -> None:
        """Continue from ``step``: an interrupted run's records up to it are kept, later ones dropped."""
        if step and self.path.exists():
            earlier = read_trace(self.path)
            self.steps = {at: values for at, values in earlier.steps.items() if at <= step}

    def add(self, step: int, statistics: Statistics) -> None:
        """Record ``step`` and write the file atomically."""
        self.steps[step] = statistics
        self._write()

    def finish(self, singular_values: Mapping[str, Tensor]) -> None:
        """Record the singular values at the end."""
        self.singular_values = dict(singular_values)
        self._write()

    def _write(self) -> None:
        sites = list(self.end)
        names = list(dict.fromkeys(name for values in self.end.values() for name in values))
        rows = [[[at[site][name] for name in names] for site in sites] for at in self.steps.values()]
        tensors = {"steps": torch.tensor(list(self.steps)), "quantities": torch.tensor(rows, dtype=torch.float32)}
        tensors |= {VALUES + site: values.float().contiguous() for site, values in self.singular_values.items()}
        # one entry, because safetensors writes several in random order
        content = save(tensors, {"kravl": json.dumps({"sites": sites, "quantities": names})})
        write_atomic(self.path, content)


def read_trace(path: Path) -> Trace:
    """What `Trace` wrote. Raises InputError for any other file."""
    refuse_endless(path)
    try:
        with safe_open(path, framework="pt") as file:
            head = json_object((file.metadata() or {}).get("kravl", "{}"), f"the description in {str(path)!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read as the spectra of a run: {error}") from error
    sites, names = head.get("sites"), head.get("quantities")
    at, rows = tensors.get("steps"), tensors.get("quantities")
    if not (_texts(sites) and _texts(names)) or at is None or rows is None or at.is_floating_point() or at.dim() != 1:
        raise InputError(f"{str(path)!r} is not the spectra of a run: sites, quantities or steps are missing")
    assert isinstance(sites, list)
    assert isinstance(names, list)
    if rows.shape != (shape := (len(at), len(sites), len(names))) and rows.numel():
        raise InputError(f"{str(path)!r} is damaged: it has quantities {tuple(rows.shape)}, not {shape}")
    steps: dict[int, Statistics] = {
        step: {site: dict(zip(names, values, strict=True)) for site, values in zip(sites, of_sites, strict=True)}
        for step, of_sites in zip(at.tolist(), rows.tolist(), strict=bool(rows.numel()))
    }
    values = {name.removeprefix(VALUES): t.double() for name, t in tensors.items() if name.startswith(VALUES)}
    return Trace(path, steps, values)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class Spectra(Protocol):
    """Measures the current quantities and singular values of every site."""

    def quantities(self) -> Statistics: ...

    def singular_values(self) -> Mapping[str, Tensor]: ...


class SpectrumMonitor(Callback):
    """Logs ``delta/<quantity>``, the mean over sites, by optimiser step.

    Args:
        spectra: measures the sites.
        every: optimiser steps between two records; the last step is always recorded, with 0 it alone.
        trace: the file that they are written to, with the singular values at the end.
        histograms: logs ``spectrum/<quantity>`` over sites.
        of_sites: whether to log ``sites/<site>/<quantity>``, too, and at the end its singular values.

    ``seconds`` is the time that it has taken so far.

    Raises:
        InputError: ``every`` is negative.
    """

    def __init__(
        self, spectra: Spectra, every: int, trace: Trace, histograms: Histograms, of_sites: bool = False
    ) -> None:
        if every < 0:
            raise InputError(f"spectra every {every} steps: give a number of steps, or 0 for the end only")
        self.spectra, self.every, self.trace, self.histograms = spectra, every, trace, histograms
        self.of_sites = of_sites
        self.seconds = 0.0
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.trace.resume(step_of_run(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every and step_of_run(trainer) % self.every == 0:
            with gathered_weights(trainer):
                self._record(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with gathered_weights(trainer):
            self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        self._record(trainer)
        if not trainer.is_global_zero or not self.trace.steps:
            return
        start = time.perf_counter()
        values = self.spectra.singular_values()
        self.trace.finish(values)
        if self.of_sites:
            singular = {f"sites/{site}/singular_values": v.tolist() for site, v in values.items()}
            self.histograms(singular, step_of_run(trainer))
        self.seconds += time.perf_counter() - start
        log.info("spectra of %d sites at %d steps took %.1f s", len(values), len(self.trace.steps), self.seconds)

    def _record(self, trainer: Trainer) -> None:
        # while gradients accumulate, the step is still that of the last update
        step = step_of_run(trainer)
        if step == self._logged_step or not trainer.is_global_zero:
            return
        start = time.perf_counter()
        self._logged_step = step
        if statistics := self.spectra.quantities():  # a linear probe has no sites
            self.trace.add(step, statistics)
            for logger in trainer.loggers:
                logger.log_metrics(flatten(statistics, self.of_sites), step=step)
            self.histograms({f"spectrum/{name}": values for name, values in by_quantity(statistics).items()}, step)
        self.seconds += time.perf_counter() - start


def by_quantity(statistics: Statistics) -> dict[str, list[float]]:
    """Quantity -> its value at every site."""
    names = dict.fromkeys(name for values in statistics.values() for name in values)
    return {name: [values[name] for values in statistics.values()] for name in names}


def flatten(statistics: Statistics, of_sites: bool = False) -> dict[str, float]:
    """The mean over sites of each quantity as ``delta/<quantity>``; ``of_sites``: ``sites/<site>/<quantity>``, too."""
    flat = {f"delta/{name}": fmean(values) for name, values in by_quantity(statistics).items()}
    if of_sites:
        flat |= {f"sites/{site}/{name}": v for site, values in statistics.items() for name, v in values.items()}
    return flat
