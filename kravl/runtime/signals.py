"""A request to end: signals set a flag and do nothing else; long work asks for it between two of its steps.

Saving inside of a handler would save half a step, or hang in a lock that the interrupted code holds.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_RESUMABLE = 75  # EX_TEMPFAIL: the same command resumes where this one stopped
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
ONCE_MORE = b"\nsaving, then leaving; Ctrl-C once more leaves at once\n"
_received: list[int] = []


class Interrupted(Exception):  # noqa: N818 (no error: what was asked for)
    """The process was asked to end, and everything worth keeping is kept."""


@contextmanager
def handling() -> Iterator[None]:
    """Within the block the signals of SIGNALS are requests to end. Threads other than the main one hear nothing."""
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
    """Set the handlers, which others may have replaced since the block of `handling` began."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number not in _received:
                signal.signal(number, _note)


def stop_requested() -> bool:
    """Whether the process has been asked to end."""
    return bool(_received)


def raise_if_stopped() -> None:
    """Raise Interrupted if the process has been asked to end."""
    if _received:
        raise Interrupted(signal.Signals(_received[0]).name)


def ignore(worker: int = 0) -> None:
    """Of a data loader's worker: signals to the whole group of processes are for the one that it works for.

    The second SIGTERM ends it, as its owner may send one to a worker that does not leave by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _note(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the kernel answers the second one, whatever is running
        os.write(2, ONCE_MORE)
