"""What dead owners leave behind keeps nobody out, and what a living one holds keeps everybody out."""

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from faults.campaign import Outcome, Row
from faults.victims import launch

from kravl.runtime.errors import InputError
from kravl.runtime.lock import STALE, Lock

LONG_AGO = 10 * STALE


def stale(count: int, folder: Path) -> Outcome:
    """``count`` stale locks of several kinds in turn, each of which is taken over, and living ones, which are not."""
    failures = []
    for i in range(count):
        leave = KINDS[i % len(KINDS)]
        place = folder / str(i)
        place.mkdir()
        leave(place)
        try:
            with mock.patch("kravl.runtime.lock.SETTLING", 0.01):  # no other host takes over at the same moment
                Lock(place).release()
        except InputError as error:
            failures.append(f"{leave.__name__}: {error}")
    for leave in (_other_host_alive, _half_written_now, _here_without_locks):
        place = folder / leave.__name__
        place.mkdir()
        leave(place)
        no_locks = mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available"))
        try:
            with no_locks if leave is _here_without_locks else nullcontext():
                Lock(place).release()
            failures.append(f"{leave.__name__}: taken from the living")
        except InputError:
            pass
    return Outcome(count, f"{count} stale locks, {len(failures)} wrong", failures)


def _killed(place: Path) -> None:
    """Of a process on this host that was killed."""
    process = launch(_hold, place)
    while not (place / ".owner").exists():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _hold(place: Path) -> None:
    Lock(place)
    signal.pause()


def _number_given_again(place: Path) -> None:
    """Of a process whose id another process, this one, has now."""
    _write(place)


def _other_host(place: Path) -> None:
    """Of another host that has been silent for long."""
    _write(place, host="another", age=LONG_AGO)


def _from_the_future(place: Path) -> None:
    """Copied from a host whose clock was a day ahead."""
    _write(place, host="another", age=-86400)


def _garbage_from_the_future(place: Path) -> None:
    (place / ".owner").write_text("{" * 5000)
    _touch(place, -86400)


def _odd_fields(place: Path) -> None:
    """Of this host by its name, and nothing else that a process writes."""
    _write(place, pid=10**30, since=None, space=[1])


def _no_record(place: Path) -> None:
    (place / ".owner").write_text("[" * 100_000)
    _touch(place, LONG_AGO)


def _link_to_nowhere(place: Path) -> None:
    (place / ".owner").symlink_to("/nowhere/x")
    os.utime(place / ".owner", (0, 0), follow_symlinks=False)


def _folder(place: Path) -> None:
    (place / ".owner").mkdir()
    _touch(place, LONG_AGO)


def _half_written(place: Path) -> None:
    """Of a process that was killed while it wrote."""
    (place / ".owner").write_text('{"pid": 12')
    _touch(place, LONG_AGO)


def _other_host_alive(place: Path) -> None:
    _write(place, host="another", age=1.0)


def _half_written_now(place: Path) -> None:
    (place / ".owner").write_text("")


def _here_without_locks(place: Path) -> None:
    _write(place)


def _owner(place: Path) -> dict[str, Any]:
    lock = Lock(place)
    told = json.loads((place / ".owner").read_text())
    lock.release()
    return told


def _write(place: Path, age: float = 0.0, **changes: object) -> None:
    (place / ".owner").write_text(json.dumps(_owner(place) | {"host": socket.gethostname()} | changes))
    _touch(place, age)


def _touch(place: Path, age: float) -> None:
    then = time.time() - age
    os.utime(place / ".owner", (then, then))


KINDS: tuple[Callable[[Path], None], ...] = (
    _number_given_again,
    _other_host,
    _half_written,
    _from_the_future,
    _garbage_from_the_future,
    _odd_fields,
    _no_record,
    _link_to_nowhere,
    _folder,
    _killed,
)
FAULT = "stale locks of dead processes, restarts, other hosts and clocks, with odd or no content"
ROW = Row(8, FAULT, "20 of 20 heal by themselves", 20, 10, stale)
