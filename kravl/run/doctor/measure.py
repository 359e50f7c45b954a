"""A few real steps of a run and a few real batches of its evaluation, timed: nothing of them is kept."""

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback

from kravl.config.schema import Config
from kravl.evaluation.wise_ft import ADAPTED, curve_points, wise_ft
from kravl.run.build import build_run
from kravl.run.doctor.estimate import Estimate
from kravl.run.fit import fit, graceful_exit
from kravl.run.sources import Sources
from kravl.run.stages.plan import stages_of
from kravl.runtime.profiler import Profiler
from kravl.training.trainer import limits, make_trainer

STEPS, WARM = 6, 2  # optimiser steps, the first of which are not counted
BATCHES = 2  # of each evaluated set


class Measured(NamedTuple):
    """Seconds of one step and of one evaluated image, and the peak of memory in bytes."""

    step: float
    image: float
    peak_bytes: int


class _StepTimes(Callback):
    """The moment at which each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def means(self, stages: int) -> list[float]:
        """Seconds of a step of each of so many stages, which had as many steps; 0 where none trained."""
        each = len(self.ends) // stages
        parts = [self.ends[stage * each : (stage + 1) * each][WARM:] for stage in range(stages)]
        return [(ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0 for ends in parts]


def measure(cfg: Config, sources: Sources) -> Measured:
    """Train a few steps and evaluate a few batches, as the run does.

    Raises:
        InputError: as `kravl.run.build.build_run`.
        SystemExit: as `kravl.run.train.train`.
    """
    count = max(1, len(cfg.stages))
    stages = [replace(stage, share=None, steps=STEPS) for stage in cfg.stages]
    optim = replace(cfg.optim, epochs=None, steps=count * STEPS, steps_per_shot=None)
    short = replace(cfg, optim=optim, stages=stages, cache_root=None)
    settings = {**cfg.trainer, "enable_progress_bar": False, "enable_model_summary": False}
    profiler, times = Profiler(), _StepTimes()
    with tempfile.TemporaryDirectory() as folder, graceful_exit():
        run = build_run(short if cfg.optim.trains else cfg, sources)
        make = partial(make_trainer, settings, folder=Path(folder), logger=False, callbacks=[times])
        if cfg.optim.trains:
            fit(make(limits(None, STEPS, None, None)), make, short, run, Path(folder) / "checkpoints", profiler)
        trainer = make_trainer({**settings, "limit_test_batches": BATCHES}, {}, Path(folder), False)
        with profiler("evaluate"):
            loaders, classes = run.data.evaluation_loaders(), run.data.evaluation_classes()
            rows = wise_ft(trainer, run.classifier, run.adapters, loaders, classes, [ADAPTED])[ADAPTED]
    images = sum(len(predictions.indices) for predictions in rows.values())
    shares = [stage.steps for stage in stages_of(cfg)] if cfg.stages and cfg.optim.trains else [1]
    pairs = zip(shares, times.means(len(shares)), strict=True)
    seconds = sum(share * mean for share, mean in pairs) / sum(shares)
    key = "peak_gpu_bytes" if trainer.strategy.root_device.type == "cuda" else "peak_memory_bytes"
    return Measured(
        seconds, profiler.costs["evaluate"]["seconds"] / images, int(max(c[key] for c in profiler.costs.values()))
    )


def total_seconds(cfg: Config, cost: Estimate, measured: Measured) -> float:
    """Of the whole run, without what it takes to start and to decode images that are not cached."""
    points = len(curve_points(cfg.alphas, zero_shot=True)) if cfg.optim.trains else 1
    return cost.steps * measured.step + points * cost.evaluated * measured.image
