"""The progress of a study: what is done, what is left, and how long that may take."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from rich.cells import cell_len
from rich.console import Console

from kravl.runtime.console import plain, text_table
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json
from kravl.runtime.lock import in_use
from kravl.study.grid import StudyRun
from kravl.study.scheduler import FAILED
from kravl.study.schema import Study
from kravl.tracking.records import is_done
from kravl.tracking.run_folder import LOG, RunFolder

State = Literal["done", "failed", "running", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "failed", "running", "interrupted", "missing")
MOST_SECONDS = 1e9  # that a run may say it took
GAP = 2  # between two columns
MARKS: dict[State, str] = {"failed": "failed", "running": "running elsewhere", "interrupted": "interrupted"}


def state(run: StudyRun) -> State:
    """A run's state by its folder: ``running`` belongs to another process, ``interrupted`` can be resumed.

    One whose record is damaged has ``failed``: it stops no other run.
    """
    try:
        if is_done(RunFolder(run.folder)):
            return "done"
    except InputError:
        return "failed"
    if in_use(run.folder):
        return "running"
    if (run.folder / FAILED).is_file():
        return "failed"
    return "interrupted" if (run.folder / "config.yaml").is_file() else "missing"


def failure(run: StudyRun) -> str:
    """One line: which run, why it failed, and its log."""
    try:
        is_done(RunFolder(run.folder))  # it says what is wrong with a record
        reason = read_json(run.folder / FAILED)["reason"]
    except InputError as error:
        reason = str(error)
    except (KeyError, TypeError):
        reason = "unknown"
    return f"{run.title}: {reason} ({run.folder / LOG})"


class Durations:
    """Seconds that runs took, from the cost.json of the finished ones."""

    def __init__(self, finished: Iterable[StudyRun]) -> None:
        self._known: dict[Hashable, list[float]] = defaultdict(list)
        for run in finished:
            self.add(run)

    def add(self, run: StudyRun) -> None:
        """Take a finished run into account; one without a complete cost.json is ignored."""
        seconds = _seconds(run)
        for key in _similarity_keys(run) if seconds is not None else ():
            self._known[key].append(seconds)  # type: ignore[arg-type]

    def expected(self, runs: Sequence[StudyRun]) -> float | None:
        """Seconds for ``runs`` in sequence, each as long as the most similar finished runs; None if there are none."""
        if not self._known:
            return None
        return sum(next(fmean(self._known[key]) for key in _similarity_keys(run) if key in self._known) for run in runs)


def _similarity_keys(run: StudyRun) -> Iterator[Hashable]:
    """From the most similar runs to all runs."""
    yield run.cell, run.shots
    yield run.cell
    yield run.cell.method
    yield None


def _seconds(run: StudyRun) -> float | None:
    try:
        phases: Mapping[str, Mapping[str, float]] = read_json(run.folder / "cost.json")["phases"]
        seconds = sum(phase["seconds"] for phase in phases.values())
        return seconds if 0 <= seconds < MOST_SECONDS else None
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def show_plan(console: Console, study: Study, runs: Sequence[StudyRun], states: Sequence[State]) -> None:
    """Print how many runs of each method and data set are done, failed, interrupted or running elsewhere.

    Methods are rows; as many backbones and data sets are columns as fit, the rest in further tables below.
    """
    console.print(plain(f"{study.name}: {study.question}" if study.question else study.name))
    several = len(study.backbones) > 1
    counts_of: dict[tuple[str, ...], Counter[State]] = defaultdict(Counter)
    for run, each in zip(runs, states, strict=True):
        counts_of[run.cell][each] += 1
    columns = [["done / all", *study.methods]]
    for backbone, data in itertools.product(study.backbones, study.datasets):
        cells = [_cell(counts_of[backbone, data, method]) for method in study.methods]
        columns.append([f"{backbone}, {data}" if several else data, *cells])
    for chosen in _fitting(columns, console.width):
        console.print(text_table(list(zip(*chosen, strict=True))))
    counts = Counter(states)
    named = [f"{counts[state]} {state}" for state in STATES if counts[state] or state in ("done", "missing")]
    console.print(plain(f"{len(runs)} runs: {', '.join(named)}"))


def _fitting(columns: Sequence[Sequence[str]], width: int) -> Iterator[list[Sequence[str]]]:
    """The first of the ``columns`` with as many of the others as ``width`` has room for, until all are there."""
    widths = [max(map(cell_len, column)) + GAP for column in columns]
    begin = 1
    while begin < len(columns):
        end = begin + 1  # at least one, folded where it is wider than the terminal
        while end < len(columns) and widths[0] + sum(widths[begin : end + 1]) <= width:
            end += 1
        yield [columns[0], *columns[begin:end]]
        begin = end


def _cell(count: Counter[State]) -> str:
    marks = [f"{count[state]} {mark}" for state, mark in MARKS.items() if count[state]]
    return ", ".join([f"{count['done']}/{count.total()}", *marks])
