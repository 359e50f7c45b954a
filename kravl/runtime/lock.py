"""One owner per folder: a lock that ends with its process, and a file that names the owner where locks do nothing.

A file lock excludes processes on the same host. On some network file systems it does nothing between hosts, so the
owner also writes ``.owner`` and touches it as long as it lives; an owner on another host is presumed dead once the
file has not been touched for a while. Nobody has to remove anything by hand.
"""

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from kravl.runtime.errors import InputError

HEARTBEAT = 30.0  # seconds between two touches of .owner
STALE = 300.0  # seconds without one after which an owner on another host is presumed dead
PATIENCE = 1.0  # seconds; `in_use` holds the file lock for a moment
SETTLING = 1.0  # seconds in which another host that took over from the same dead owner may remove this one's file
MAX_RECORD = 4096  # characters of a record; one has about a hundred
SHOWN = 80  # characters of one of its fields


class InUseError(InputError):
    """Another process owns the folder."""


class Lock:
    """Ownership of ``folder``, created if missing, until `release` or the end of this process, however it ends.

    Raises:
        InUseError: another process owns it; its id, host and age.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._released = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _file_lock(folder, PATIENCE)
        try:
            self._claim(folder / ".owner")
        except (InputError, OSError):
            self._lock.release()
            raise
        threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def release(self) -> None:
        """Give up ownership."""
        self._released.set()
        if _owner(self._folder) == self._record:
            (self._folder / ".owner").unlink(missing_ok=True)
        self._lock.release()

    def _claim(self, file: Path) -> None:
        if dead := os.path.lexists(file) and not _is_alive(self._folder, self._lock):
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
        try:
            _create(file, json.dumps(self._record))
        except FileExistsError:
            raise _in_use(self._folder) from None
        if dead:
            time.sleep(SETTLING)
        if _owner(self._folder) != self._record:
            raise _in_use(self._folder)

    def _send_heartbeats(self) -> None:
        while not self._released.wait(HEARTBEAT):
            try:
                os.utime(self._folder / ".owner")
            except OSError:  # the folder has been moved or removed
                return


def _create(file: Path, text: str) -> None:
    """Write ``file``, whole when it appears: a process killed in between must not leave an empty one.

    Raises:
        FileExistsError: it exists.
    """
    whole = file.with_name(f".{file.name}.{uuid4().int}")  # as `remove_leftovers` knows them
    whole.write_text(text)
    try:
        os.link(whole, file)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with file.open("x") as opened:
            opened.write(text)
    finally:
        whole.unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether a live process owns ``folder``."""
    if not os.path.lexists(folder / ".owner"):
        return False
    try:
        lock = _file_lock(folder, 0)
    except InUseError:
        return True
    try:
        return _is_alive(folder, lock)
    finally:
        lock.release()


def _file_lock(folder: Path, patience: float) -> FileLock:
    """The lock among processes of this host; not held where the file system has no locks, and ``.owner`` decides.

    Raises:
        InUseError: another process still holds it after ``patience`` seconds.
    """
    lock = FileLock(folder / ".lock", timeout=patience, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise _in_use(folder) from None
    except OSError:
        pass  # if the folder cannot be written at all, writing `.owner` raises
    return lock


def _is_alive(folder: Path, lock: FileLock) -> bool:
    """Whether the owner in ``.owner`` is alive: one on this host would hold the ``lock`` that this process holds."""
    if lock.is_locked and _owner(folder).get("host") == socket.gethostname():
        return False
    (folder / ".lock").touch()  # both times by the file system's clock: those of two hosts may differ
    try:
        age = (folder / ".lock").stat().st_mtime - (folder / ".owner").lstat().st_mtime
        return abs(age) < STALE  # a time in the future is no touch of a living owner's: a clock was wrong, or a copy is
    except FileNotFoundError:
        return True  # its owner is just releasing it


def _owner(folder: Path) -> dict[str, Any]:
    """The record in ``.owner``; empty if it is missing, or half written by a process that was killed or is writing."""
    try:
        if not (folder / ".owner").is_file():  # a pipe would be waited for
            return {}
        with (folder / ".owner").open(errors="replace") as file:
            owner = json.loads(file.read(MAX_RECORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _in_use(folder: Path) -> InUseError:
    deadline = time.monotonic() + 10  # the owner may hold the lock and not have written yet
    while not (owner := _owner(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid, host, since = (str(owner.get(key))[:SHOWN] for key in ("pid", "host", "since"))
    by = f"process {pid} on {host} since {since}" if owner else "another process"
    wait = f"a dead owner on another host is noticed after {STALE:.0f} s"
    return InUseError(f"the run folder {folder} is in use by {by}; wait for it or change name= ({wait})")
