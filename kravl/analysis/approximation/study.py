"""A grid of targets, methods, budgets and seeds: its fits, planned and checked before the first, and a single fit."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from kravl.adapters.base import Adapter
from kravl.analysis.approximation.budget import MakeAdapter, OverBudgetError, count, spend, unit
from kravl.analysis.approximation.fit import (
    Decomposed,
    FitSettings,
    draw_weight,
    fit_adapter,
    frobenius_error,
    measure,
    unit_of,
)
from kravl.analysis.approximation.optimum import optimum
from kravl.analysis.approximation.target import Shape, Target, draw_matrix
from kravl.runtime.errors import InputError


@dataclass(frozen=True)
class Method:
    """A named adapter; ``scale`` multiplies its update instead of the study's."""

    make: MakeAdapter
    scale: float | None = None


@dataclass(frozen=True)
class Goal:
    """A named target and everything that its matrices depend on, in plain values."""

    target: Target
    node: Mapping[str, Any]

    @cached_property
    def identity(self) -> dict[str, Any]:
        source = self.target.source
        return dict(self.node) | ({"sha256": hashlib.sha256(source.read_bytes()).hexdigest()} if source else {})


@dataclass(frozen=True)
class Trial:
    """One fit: a method of one size on one target with one seed; ``budget`` None means the method's own size."""

    target: str
    method: str
    shape: Shape
    budget: float | None
    seed: int
    parameters: int
    settings: Mapping[str, Any]  # the adapter's class and hyper-parameters
    goal: Mapping[str, Any]
    fit: FitSettings

    @cached_property
    def key(self) -> str:
        """Equal trials have equal keys, so that a finished one is not repeated."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """What a study combines; ``budgets`` are multiples of KRAdapter's parameters, none: each method's own size."""

    goals: Mapping[str, Goal]
    methods: Mapping[str, Method]
    shape: Shape
    budgets: Sequence[float]
    seeds: Sequence[int]


def plan_fits(grid: Grid, settings: FitSettings) -> tuple[list[tuple[Trial, MakeAdapter]], list[str]]:
    """Every trial with the constructor of its adapter, and a line for each budget that is too small for a method.

    Raises:
        InputError: a target cannot be drawn, or no method fits a budget.
    """
    for name, goal in grid.goals.items():
        draw_matrix(name, goal.target, grid.shape, grid.seeds[0])
    sized, notes = _sized(grid)
    trials = []
    for target, goal in grid.goals.items():
        for seed in grid.seeds:
            for (method, budget), (make, parameters) in sized.items():
                scale = grid.methods[method].scale
                fit = settings if scale is None else FitSettings(**{**asdict(settings), "scale": scale})
                trial = Trial(
                    target,
                    method,
                    grid.shape,
                    budget,
                    seed,
                    parameters,
                    _describe(make, grid.shape),
                    goal.identity,
                    fit,
                )
                trials.append((trial, make))
    return trials, notes


def _sized(grid: Grid) -> tuple[dict[tuple[str, float | None], tuple[MakeAdapter, int]], list[str]]:
    sized: dict[tuple[str, float | None], tuple[MakeAdapter, int]] = {}
    notes = []
    for name, method in grid.methods.items():
        if not grid.budgets:
            sized[name, None] = method.make, count(method.make, grid.shape)
        for budget in grid.budgets:
            try:
                sized[name, budget] = spend(name, method.make, grid.shape, budget * unit(grid.shape))
            except OverBudgetError as error:
                notes.append(f"left out: {error}")
    if not sized:
        raise InputError(f"no method fits a budget: {'; '.join(notes)}; try budgets=[{2 * max(grid.budgets):g}]")
    return sized, notes


def _describe(make: MakeAdapter, shape: Shape) -> dict[str, Any]:
    with torch.device("meta"):
        adapter = make(*shape)
    return {"_target_": f"{type(adapter).__module__}.{type(adapter).__qualname__}", **adapter.hyperparameters()}


def run_trial(trial: Trial, make: MakeAdapter, target: Decomposed) -> dict[str, Any]:
    """Fit one adapter and return its record. Leaves the global random state as it was.

    Raises:
        FitDivergedError: the loss is not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(trial.seed)
        adapter: Adapter = make(*trial.shape)
        begin = time.perf_counter()
        weight = draw_weight(target.matrix, trial.fit)
        fitted = Decomposed(fit_adapter(adapter, target.matrix, trial.fit, weight))
        seconds = time.perf_counter() - begin
    in_units = target.matrix / unit_of(target.matrix, trial.fit)
    best = optimum(adapter, in_units, weight.double())
    return {
        "key": trial.key,
        **asdict(trial),
        "metrics": measure(fitted, target),
        "optimum_error": None if best is None else frobenius_error(best, in_units),
        "spectrum": fitted.points(),
        "target_spectrum": target.points(),
        "seconds": seconds,
    }
