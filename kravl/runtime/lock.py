"""One owner a folder: a lock that dies with its process, and a file that says whose it is, for where locks do nothing.

A file lock keeps out what runs on the same host. On some network file systems it does nothing between hosts, so the
owner also writes ``.owner`` and touches it as long as it lives; an owner on another host is taken for dead when the
file has not been touched for a while. Nobody has to remove anything by hand.
"""

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kravl.runtime.errors import InputError

SIGN_EVERY = 30.0  # seconds between two signs of life
SILENT = 300.0  # seconds without one after which an owner on another host is dead
PATIENCE = 1.0  # seconds; `in_use` holds the file lock for a moment
SETTLING = 1.0  # seconds in which another host that found the same owner dead may remove what this one wrote


class InUseError(InputError):
    """Another process owns the folder."""


class Lock:
    """This process owns ``folder``, made if it is not there, until `release`, or until it ends, however it ends.

    Raises:
        InUseError: another process owns it; its id, host and age.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._released = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _file_lock(folder, PATIENCE)
        try:
            self._claim(folder / ".owner")
        except (InputError, OSError):
            self._lock.release()
            raise
        threading.Thread(target=self._give_signs, daemon=True).start()

    def release(self) -> None:
        """Leave the folder to others."""
        self._released.set()
        if _told(self._folder) == self._mine:
            (self._folder / ".owner").unlink(missing_ok=True)
        self._lock.release()

    def _claim(self, file: Path) -> None:
        if dead := file.exists() and not _lives(self._folder, self._lock):
            file.unlink(missing_ok=True)
        record = json.dumps(self._mine)  # before the file is there: killed in between, it would leave half of one
        try:
            with file.open("x") as owner:
                owner.write(record)
        except FileExistsError:
            raise _in_use(self._folder) from None
        if dead:
            time.sleep(SETTLING)
        if _told(self._folder) != self._mine:
            raise _in_use(self._folder)

    def _give_signs(self) -> None:
        while not self._released.wait(SIGN_EVERY):
            try:
                os.utime(self._folder / ".owner")
            except OSError:  # the folder has been moved or removed
                return


def in_use(folder: Path) -> bool:
    """Whether a process that lives owns ``folder``."""
    if not (folder / ".owner").exists():
        return False
    try:
        lock = _file_lock(folder, 0)
    except InUseError:
        return True
    try:
        return _lives(folder, lock)
    finally:
        lock.release()


def _file_lock(folder: Path, patience: float) -> FileLock:
    """The lock that processes on this host keep to; not locked where the file system has none, and ``.owner`` decides.

    Raises:
        InUseError: another one has it for all of ``patience`` seconds.
    """
    lock = FileLock(folder / ".lock", timeout=patience, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise _in_use(folder) from None
    except OSError:
        pass  # where the folder is what cannot be written, `.owner` cannot either
    return lock


def _lives(folder: Path, lock: FileLock) -> bool:
    """Whether the owner does that ``.owner`` tells of: one on this host would have the ``lock`` that is had now."""
    if lock.is_locked and _told(folder).get("host") == socket.gethostname():
        return False
    (folder / ".lock").touch()  # both times by the clock of the disk: those of two hosts may differ
    try:
        return (folder / ".lock").stat().st_mtime - (folder / ".owner").stat().st_mtime < SILENT
    except FileNotFoundError:
        return True  # it is leaving


def _told(folder: Path) -> dict[str, Any]:
    """What ``.owner`` says: nothing if it is missing, or half written by a process that was killed or is at it."""
    try:
        told = json.loads((folder / ".owner").read_text(errors="replace"))
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _in_use(folder: Path) -> InUseError:
    deadline = time.monotonic() + 10  # it may have the lock and not have written yet
    while not (told := _told(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    who = f"process {told.get('pid')} on {told.get('host')} since {told.get('since')}" if told else "another process"
    wait = f"one on another host that is gone is noticed after {SILENT:.0f} s"
    return InUseError(f"the run folder {folder} is in use by {who}; wait for it or change name= ({wait})")
