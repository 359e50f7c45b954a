"""Several runs in parallel on this machine: one per GPU, else one per core with one thread each.

A short run gains little from a second thread on a CPU, processes with more threads than cores slow each other down
severely, and one thread everywhere gives the same numbers on any number of cores.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kravl.runtime.errors import InputError
from kravl.runtime.files import write_atomic
from kravl.runtime.lock import in_use
from kravl.study.pool import WorkerPool
from kravl.study.worker import Status, WorkerResult
from kravl.tracking.records import is_done
from kravl.tracking.run_folder import LOG, RunFolder

FAILED = "failed.json"  # in a run's folder: why it failed
POLL = 0.5  # seconds between checks of `stop` and of the runs of other processes
Planned = tuple[Path, Callable[[], Any]]  # a run's folder, and what composes its config


class Outcome(NamedTuple):
    """The new status of the run at ``position``, and why it failed if it did."""

    position: int
    status: Status | Literal["started"]
    reason: str = ""


def run_all(planned: Sequence[Planned], jobs: int | None, stop: Callable[[], bool] | None = None) -> Iterator[Outcome]:
    """Train the runs that are not finished, ``jobs`` at a time; a run that fails does not stop the others.

    Waits for runs that another process is training, and trains those that it leaves unfinished.

    Args:
        jobs: None: one per GPU, else one per core but at most four.
        stop: called at every poll; once it returns True, runs are asked to save their state and the iteration ends.

    Raises:
        InputError: a run folder cannot be made.
    """
    pool = WorkerPool(jobs)
    waiting, elsewhere = deque(range(len(planned))), deque[int]()
    try:
        while (waiting or elsewhere or pool.num_training) and not (stop and stop()):
            if waiting and pool.num_training < pool.size:
                position = waiting.popleft()
                yield from _started(pool, position, planned[position], elsewhere)
            elif pool.num_training:
                for position, result in pool.poll(POLL):
                    yield _outcome(position, planned[position][0], result)
                    elsewhere += [position] if result.status == "elsewhere" else []
            else:
                time.sleep(POLL)
                waiting, elsewhere = elsewhere, deque()
    finally:
        pool.shutdown()


def _started(pool: WorkerPool, position: int, planned: Planned, elsewhere: deque[int]) -> Iterator[Outcome]:
    """What became of starting a run; one of another process goes to ``elsewhere``."""
    try:
        done = is_done(RunFolder(planned[0]))
    except InputError as error:  # its record is damaged
        yield Outcome(position, "failed", str(error))
        return
    status = "done" if done else _start(pool, position, planned)
    if status == "elsewhere":
        elsewhere.append(position)
    else:
        yield Outcome(position, status)


def _start(pool: WorkerPool, position: int, planned: Planned) -> Literal["elsewhere", "started"]:
    folder, make_config = planned
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the run folder {folder} cannot be written: {error.strerror}; pass runs=/a/folder") from error
    if in_use(folder):
        return "elsewhere"
    (folder / FAILED).unlink(missing_ok=True)
    pool.submit(position, folder, make_config())
    return "started"


def _outcome(position: int, folder: Path, result: WorkerResult) -> Outcome:
    if result.status == "failed":
        folder.mkdir(parents=True, exist_ok=True)  # a user may have removed it
        write_atomic(folder / FAILED, json.dumps({"reason": result.reason, "log": LOG}) + "\n")
    return Outcome(position, result.status, result.reason)
