"""A process that trains one run after another: it loads torch once, and what a run prints goes to the run's folder."""

import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kravl.config.compose import register
from kravl.runtime.errors import InputError
from kravl.runtime.lock import InUseError
from kravl.runtime.signals import EXIT_RESUMABLE

LOG = "log.txt"  # in a run's folder
Status = Literal["done", "failed", "stopped", "elsewhere"]


class WorkerResult(NamedTuple):
    """What became of a run: ``elsewhere`` is owned by another process, ``stopped`` resumes when it is given again."""

    status: Status
    reason: str = ""
    last: bool = False  # the process ends with it


def work(connection: Connection, threads: int, gpu: str | None) -> None:
    """Train the runs (config, folder) that come through ``connection``; send a `WorkerResult` of each.

    What is no mistake of the user ends the process, as it would end a process of one run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that began this one ends it
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    while True:
        try:
            cfg, folder = connection.recv()
        except EOFError:
            return
        _print_to(folder / LOG)
        try:
            connection.send(_train(cfg, threads))
        except SystemExit as ended:
            stopped = ended.code == EXIT_RESUMABLE
            reason = str(ended.code).removeprefix("error: ")
            connection.send(WorkerResult("stopped" if stopped else "failed", reason, last=True))
            raise


def _train(cfg: Any, threads: int) -> WorkerResult:
    import torch

    from kravl.run.train import train

    register()  # a config's interpolations may use kravl's own
    torch.set_num_threads(threads)
    try:
        train(cfg)
    except InUseError as error:
        return WorkerResult("elsewhere", str(error))
    except InputError as error:
        logging.getLogger(__name__).error("error: %s", error)
        return WorkerResult("failed", str(error))
    return WorkerResult("done")


def _print_to(log: Path) -> None:
    sys.stdout.flush()  # what is left of the run before
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
