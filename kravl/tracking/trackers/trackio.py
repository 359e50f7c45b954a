"""Trackio, by its own client: a database in trackio's own folder, $TRACKIO_DIR, which `trackio show` draws.

$TRACKIO_PROJECT names the project (kravl); $TRACKIO_SPACE_ID and $TRACKIO_SERVER_URL send it elsewhere
(https://huggingface.co/docs/trackio).
"""

import contextlib
import io
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import trackio
from trackio.sqlite_storage import SQLiteStorage

from kravl.runtime.errors import first_line
from kravl.tracking.server import TRACKIO_ELSEWHERE
from kravl.tracking.settings import dotted
from kravl.tracking.trackers.sheet import contact_sheet
from kravl.tracking.trackers.tracker import (
    ID,
    OOD,
    Numbers,
    RunLabels,
    Sample,
    Tracker,
    kept_id,
    wise_ft_curve,
)

PROJECT = "TRACKIO_PROJECT"
PERCENT = 100  # of alpha: a step is a whole number
FAILURES = (OSError, ValueError, RuntimeError, sqlite3.Error, httpx.HTTPError)
log = logging.getLogger(__name__)


class Trackio(Tracker):
    """Curves by step, histograms, a sheet of test images and the final numbers at the last step.

    Its client only warns where it cannot write, from another thread; so what it holds is read back at the end.
    """

    kind = "trackio"
    title = "Trackio"
    failures = FAILURES

    def __init__(self, folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._given = 0
        name = f"{labels.title} {kept_id(folder / 'trackio_id')}"  # trackio tells runs apart by their names
        self._project = os.environ.get(PROJECT, "kravl")
        with _quiet():
            self._run = trackio.init(
                project=self._project,
                name=name,
                group=labels.study or labels.setting,
                config=dict(dotted(config)),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._local = not any(os.environ.get(place) for place in TRACKIO_ELSEWHERE)
        self._before = self._held()

    @property
    def version(self) -> str:
        return str(self._run.name)

    def _held(self) -> int:
        """How many entries its database has of this run."""
        return len(SQLiteStorage.get_logs(self._project, self._run.name, run_id=self._run.id)) if self._local else 0

    def write(self, metrics: Numbers, step: int | None) -> None:
        self._log(dict(metrics), step)

    def _log(self, entry: Mapping[str, Any], step: int | None) -> None:
        with _quiet():
            self._run.log(dict(entry), step)
        self._given += 1

    def write_histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        self._log({name: trackio.Histogram(list(numbers)) for name, numbers in values.items()}, step)

    def final(self, metrics: Numbers) -> None:
        self.write(metrics, self.marks.last)

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        for point in wise_ft_curve(record):
            known = {f"wise_ft_percent/{name}": point[name] for name in (ID, OOD) if point.get(name) is not None}
            self._log(known, round(PERCENT * point["alpha"]))

    def samples(self, name: str, rows: Sequence[Sample]) -> None:
        self._log({f"samples/{name}": trackio.Image(contact_sheet(rows))}, self.marks.last)

    def close(self, failed: bool) -> None:
        with _quiet():
            trackio.finish()  # and nothing of it at the end of the process
        if self._local and (lost := self._before + self._given - self._held()) > 0:
            raise OSError(f"{lost} of {self._given} entries were not written to {trackio.TRACKIO_DIR}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block what trackio prints is not shown, and what it warns of is one line of the log."""
    with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        yield
    for warning in said:
        log.debug("Trackio: %s", warning.message)


def start(folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker | None:
    """A run of the project, the same one whenever ``folder`` is resumed."""
    try:
        return Trackio(folder, labels, config)
    except FAILURES as error:
        log.warning("Trackio does not start (%s: %s)", type(error).__name__, first_line(error))
    return None
