"""A process that trains one run after another: it loads torch once, and the output of a run goes to its folder."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kravl.config.compose import register_configs
from kravl.runtime.console import keep_terminal_plain
from kravl.runtime.errors import InputError
from kravl.runtime.lock import InUseError
from kravl.runtime.own_files import open_own
from kravl.runtime.shared import sharing
from kravl.runtime.signals import EXIT_RESUMABLE
from kravl.tracking.run_folder import LOG

GRACE = 120.0  # seconds that a run has to save its state when it is asked to stop
Status = Literal["done", "failed", "killed", "stopped", "elsewhere"]


class WorkerResult(NamedTuple):
    """The result of a run.

    ``elsewhere`` if another process owns it; ``stopped`` or ``killed`` by a signal if it resumes when submitted again.
    """

    status: Status
    reason: str = ""
    last: bool = False  # the process exits after this run


def work(connection: Connection, threads: int, gpu: str | None, shared_bytes: int) -> None:
    """Train the runs (config, folder) received through ``connection``; send a `WorkerResult` for each.

    What they have in common is computed once, see kravl/runtime/shared.py, which keeps up to ``shared_bytes`` of it.
    Anything but a user's mistake ends the process, as it would the process of a single run.
    """
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach all processes; the parent stops this one
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with sharing(shared_bytes):
        _work(connection, threads)


def _work(connection: Connection, threads: int) -> None:
    while True:
        try:
            cfg, folder = connection.recv()
        except EOFError:
            return
        try:
            _print_to(folder / LOG)
        except OSError as error:
            _send(connection, WorkerResult("failed", f"cannot write {folder / LOG}: {error.strerror}"))
            continue
        try:
            result = _train(cfg, threads)
        except SystemExit as ended:
            stopped = ended.code == EXIT_RESUMABLE
            reason = str(ended.code).removeprefix("error: ")
            _send(connection, WorkerResult("stopped" if stopped else "failed", reason, last=True))
            raise
        _send(connection, result)


def _send(connection: Connection, result: WorkerResult) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent has died: what is kept is in the run's folder
        connection.send(result)


def _end_with_parent() -> None:
    """Stop this process as on request once its parent has died: alone, it would train on beside the next start."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def _train(cfg: Any, threads: int) -> WorkerResult:
    import torch

    from kravl.run.train import train

    register_configs()  # a config's interpolations may use kravl's resolvers
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
    sys.stdout.flush()  # what is left of the previous run
    descriptor = open_own(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    keep_terminal_plain()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
