"""Several runs side by side on this machine: as many processes as cores, one thread each.

A short run gains little from a second thread, and one thread everywhere gives the same numbers on any number of cores.
"""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from kravl.record import RunFolder

MOST = 4  # processes unless told otherwise: each holds torch and a model of its own


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def train_all(planned: Sequence[tuple[Any, Path]], jobs: int | None, log: Path) -> Iterator[int]:
    """Train what is not finished, ``jobs`` at once (None: one a core, at most four).

    Args:
        planned: the config of each run, and its folder.
        log: file at whose end goes all that the runs print.

    Yields:
        Position in ``planned`` of each run when it is finished, those that were finished before first.

    Raises:
        InputError, SystemExit: what ended a run; runs that have not begun are not begun.
    """
    missing = []
    for position, (_, folder) in enumerate(planned):
        if RunFolder(folder).finished:
            yield position
        else:
            missing.append(position)
    if not missing:
        return
    workers = min(jobs or min(cores(), MOST), len(missing))
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, spawn, _begin, (log,)) as pool:
        running: dict[Future[None], int] = {pool.submit(_train, planned[i][0]): i for i in missing}
        try:
            for done in as_completed(running):
                done.result()
                yield running[done]
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(log: Path) -> None:
    """Of a process that trains, the only kind that loads torch: one thread, and what it says at the end of ``log``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import torch

    torch.set_num_threads(1)


def _train(cfg: Any) -> None:
    from kravl.run import train

    train(cfg)
