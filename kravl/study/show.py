"""A study on the terminal: its plan, its progress, and what failed."""

import itertools
from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kravl.study.grid import StudyRun
from kravl.study.schema import Study
from kravl.study.state import STATES, State

MARKS: dict[State, str] = {"failed": "failed", "running": "running elsewhere", "interrupted": "interrupted"}


def show_plan(console: Console, study: Study, runs: Sequence[StudyRun], states: Sequence[State]) -> None:
    """How many runs of each method and data set are done, and what is not as it should be."""
    console.print(Text(f"{study.name}: {study.question}" if study.question else study.name))
    table = Table(box=SIMPLE, pad_edge=False)
    several = len(study.backbones) > 1
    for title in ("done of all", *study.methods):
        table.add_column(Text(title), justify="left" if title == "done of all" else "right")
    for backbone, data in itertools.product(study.backbones, study.datasets):
        cells = [_cell(runs, states, (backbone, data, method)) for method in study.methods]
        table.add_row(Text(f"{backbone}, {data}" if several else data), *map(Text, cells))
    console.print(table)
    counts = Counter(states)
    named = [f"{counts[state]} {state}" for state in STATES if counts[state] or state in ("done", "missing")]
    console.print(Text(f"{len(runs)} runs: {', '.join(named)}"))


def _cell(runs: Sequence[StudyRun], states: Sequence[State], cell: tuple[str, str, str]) -> str:
    found = Counter(state for run, state in zip(runs, states, strict=True) if run.cell == cell)
    marks = [f"{found[state]} {mark}" for state, mark in MARKS.items() if found[state]]
    return ", ".join([f"{found['done']}/{found.total()}", *marks])


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
