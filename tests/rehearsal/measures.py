"""What a rehearsal measured: a row a run, from what the runs themselves record, and the gates that must hold."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rehearsal.commands import GROWTH, HEADS

MOST_BYTES = 6 * 2**30  # of any phase
STEEPEST = 1.3  # exponent of time or memory in images or classes; 1 is linear, the rest is noise of a shared machine
# what is smaller says nothing about growth: what a process holds at work differs by 100 MB from run to run
LEAST_SECONDS, LEAST_BYTES = 3.0, 512 * 2**20
PHASES = ("assemble", "images", "features", "train", "evaluate")
HEAD = ("command", "data set", "method", "classes", "images", "points", *(f"{phase} s" for phase in PHASES), "peak GiB")


class Measured(NamedTuple):
    """One finished run: ``images`` are those of all its evaluation sets, each evaluated at ``points`` alphas."""

    command: str
    dataset: str
    method: str
    classes: int
    images: int
    points: int
    phases: Mapping[str, Mapping[str, float]]

    def row(self) -> list[str]:
        """Its line of the table."""
        seconds = [f"{self.phases[phase]['seconds']:.1f}" if phase in self.phases else "" for phase in PHASES]
        counts = [f"{number:,}" for number in (self.classes, self.images, self.points)]
        return [self.command, self.dataset, self.method, *counts, *seconds, f"{self.peak() / 2**30:.2f}"]

    def peak(self) -> float:
        return max(phase["peak_memory_bytes"] for phase in self.phases.values())


def measured(runs: Path) -> Iterator[Measured]:
    """Every finished run below the folder ``runs``."""
    for file in sorted(runs.glob("*/seed*/metrics.json")):
        record, cost, details = (
            json.loads((file.parent / name).read_text()) for name in ("metrics.json", "cost.json", "details.json")
        )
        counts = [value for name, value in record["metrics"].items() if name.endswith("/count")]
        points = 1 + (record["zero_shot"] is not None) + len(record["wise_ft"])
        named = runs.name, record["dataset"], record["method"], len(details["class_names"])
        yield Measured(*named, round(sum(counts)), points, cost["phases"])


def unfit(runs: Path) -> Iterator[str]:
    """A line for each number of a run's metrics that is not finite, and each run that is not finished."""
    for folder in sorted(file.parent for file in runs.glob("*/seed*/config.yaml")):
        if not (folder / "metrics.json").exists():
            yield f"{folder} is not finished"
            continue
        record = json.loads((folder / "metrics.json").read_text())
        stages = {"metrics": record["metrics"], "zero_shot": record["zero_shot"] or {}}
        stages |= {f"alpha {point['alpha']}": point for point in record["wise_ft"]}
        for stage, values in stages.items():
            only = sum(name.endswith("/count") for name in values) <= 1  # no set but its own: no mean over others
            for name, value in values.items():
                absent = value is None and only and name in ("ood_mean", "harmonic_mean")
                if not absent and (value is None or not math.isfinite(value)):
                    yield f"{folder}: {stage}/{name} is {value}"


def too_large(rows: Iterable[Measured]) -> Iterator[str]:
    """A line for each phase that held more than the gate."""
    for run in rows:
        for phase, cost in run.phases.items():
            if (held := cost["peak_memory_bytes"]) > MOST_BYTES:
                yield f"{run.command} {run.dataset} {run.method}: {phase} held {held / 2**30:.1f} GiB"


class Growth(NamedTuple):
    """How a phase grows along one axis, four times as far: seconds and bytes before and after."""

    method: str
    axis: str
    phase: str
    seconds: tuple[float, float]
    held: tuple[float, float]

    def exponents(self) -> tuple[float | None, float | None]:
        """Of seconds and of bytes; None where there is too little to tell."""
        return _exponent(self.seconds, LEAST_SECONDS), _exponent(self.held, LEAST_BYTES)

    def row(self) -> list[str]:
        seconds, held = ("" if value is None else f"{value:.2f}" for value in self.exponents())
        spans = (f"{a:.1f} → {b:.1f}" for a, b in (self.seconds, [value / 2**30 for value in self.held]))
        return [self.method, self.axis, self.phase, next(spans), seconds, next(spans), held]


GROWTH_HEAD = ("method", "4 times the", "phase", "seconds", "exponent", "GiB above the start", "exponent")


def growth(rows: Sequence[Measured], start: float) -> Iterator[Growth]:
    """Each phase against classes and against images; memory is counted from ``start``, that of a process at work."""
    found = {run.method: run for run in rows}
    fewer_classes, fewer_images, everything = (f"{classes}x{images}" for classes, images in GROWTH.values())
    for head in HEADS:
        for axis, before, after in (("classes", fewer_classes, fewer_images), ("images", fewer_images, everything)):
            one, four = found.get(f"{head}_{before}"), found.get(f"{head}_{after}")
            for phase in PHASES:
                if one and four and phase in one.phases and phase in four.phases:
                    costs = [run.phases[phase] for run in (one, four)]
                    seconds, held = ([cost[key] for cost in costs] for key in ("seconds", "peak_memory_bytes"))
                    yield Growth(head, axis, phase, tuple(seconds), tuple(value - start for value in held))


def too_steep(found: Iterable[Growth]) -> Iterator[str]:
    """A line for each growth that is steeper than linear."""
    for each in found:
        for what, exponent in zip(("time", "memory"), each.exponents(), strict=True):
            if exponent is not None and exponent > STEEPEST:
                line = f"{each.method}: the {what} of {each.phase} grows with the {each.axis}"
                yield f"{line} to the power {exponent:.2f}"


def _exponent(values: Sequence[float], least: float) -> float | None:
    before, after = values
    return math.log(after / max(before, least / 4)) / math.log(4) if after >= least else None


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
