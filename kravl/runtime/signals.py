"""Requests to stop: signal handlers only set a flag, which long work checks between two steps.

Saving inside a handler would save half a step, or deadlock on a lock that the interrupted code holds.
"""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_RESUMABLE = 75  # EX_TEMPFAIL: the same command resumes where this one stopped
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)  # the last of a terminal that is closed
CTRL_C_NOTICE = b"\nsaving, then exiting; press Ctrl-C again to exit at once\n"
_received: list[int] = []


class Interrupted(Exception):  # noqa: N818 (not an error: it was requested)
    """The process was asked to stop, and everything worth keeping is saved."""


@contextmanager
def handling() -> Iterator[None]:
    """Within the block SIGNALS are requests to stop; in a thread other than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    _received.clear()
    install()
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        _received.clear()


def install() -> None:
    """Install the handlers again, which other code may have replaced since `handling` began."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number not in _received and not (number == signal.SIGHUP and _outlives_terminal()):
                signal.signal(number, _note)


def _leave_terminal() -> None:
    """Print to nowhere what went to a terminal, which is closed: writing to it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _outlives_terminal() -> bool:
    """Whether whoever started the process wants it to go on without its terminal: ``nohup``."""
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def stop_requested() -> bool:
    """Whether the process has been asked to stop."""
    return bool(_received)


def raise_if_stopped() -> None:
    """Raise Interrupted if the process has been asked to stop."""
    if _received:
        raise Interrupted(signal.Signals(_received[0]).name)


def ignore(worker: int = 0) -> None:
    """For a data loader's worker: signals to the whole process group are for its parent to handle.

    A second SIGTERM ends the worker: its parent may send one if the worker does not exit by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _note(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGHUP:
        _leave_terminal()
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the kernel answers the second one, whatever is running
        os.write(2, CTRL_C_NOTICE)
