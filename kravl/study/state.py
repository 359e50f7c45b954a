"""What has become of a study's runs, and how long the rest will take, judged by those that are finished."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from kravl.local_runs import FAILED
from kravl.local_worker import LOG
from kravl.runtime.lock import in_use
from kravl.study.grid import StudyRun
from kravl.tracking.run_folder import RunFolder

State = Literal["done", "failed", "running", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "failed", "running", "interrupted", "missing")


def state(run: StudyRun) -> State:
    """What the run's folder says; ``running`` is owned by another process, ``interrupted`` goes on from its state."""
    if RunFolder(run.folder).finished:
        return "done"
    if in_use(run.folder):
        return "running"
    if (run.folder / FAILED).is_file():
        return "failed"
    return "interrupted" if (run.folder / "config.yaml").is_file() else "missing"


def failure(run: StudyRun) -> str:
    """One line: which run, why it failed, and its log."""
    try:
        reason = json.loads((run.folder / FAILED).read_text())["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        reason = "unknown"
    return f"{run.title}: {reason} ({run.folder / LOG})"


class Durations:
    """Seconds that runs took, from the cost.json of the finished ones."""

    def __init__(self, finished: Iterable[StudyRun]) -> None:
        self._known: dict[Hashable, list[float]] = defaultdict(list)
        for run in finished:
            self.add(run)

    def add(self, run: StudyRun) -> None:
        """Take a finished run into account; one without a whole cost.json says nothing."""
        seconds = _seconds(run)
        for likeness in _likenesses(run) if seconds is not None else ():
            self._known[likeness].append(seconds)  # type: ignore[arg-type]

    def expected(self, runs: Sequence[StudyRun]) -> float | None:
        """Of ``runs`` one after the other, each as long as the finished runs most like it; None before any is known."""
        if not self._known:
            return None
        return sum(next(fmean(self._known[key]) for key in _likenesses(run) if key in self._known) for run in runs)


def _likenesses(run: StudyRun) -> Iterator[Hashable]:
    yield run.cell, run.shots
    yield run.cell
    yield run.cell.method
    yield None


def _seconds(run: StudyRun) -> float | None:
    try:
        phases: Mapping[str, Mapping[str, float]] = json.loads((run.folder / "cost.json").read_text())["phases"]
        return sum(phase["seconds"] for phase in phases.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
