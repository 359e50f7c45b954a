"""One owner a folder: a lock that dies with its process, and a file that says whose it is, for where locks do nothing.

``flock`` is enough on a local disk. On some network file systems it succeeds for everybody, so the owner also writes
``.owner`` and touches it as long as it lives. An owner on this host is asked for by its process id, one on another host
is taken for dead when the file has not been touched for a while. Nobody has to remove anything by hand.
"""

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError

SIGN_EVERY = 30.0  # seconds between two signs of life
SILENT = 300.0  # seconds without one after which an owner on another host is dead
PROC = Path("/proc")
_held: set[int] = set()  # descriptors of this process's locks


class InUseError(InputError):
    """Another process owns the folder."""


class Lock:
    """This process owns ``folder`` until `release`, or until it ends, however it ends.

    Raises:
        InUseError: another process owns it; its id, host and age.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._owner = folder / ".owner"
        self._released = threading.Event()
        self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            self._lock(folder)
            self._mine = json.dumps(_this_process() | {"since": time.strftime("%Y-%m-%d %H:%M:%S")})
            self._claim(folder)
        except (InputError, OSError):
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)
        threading.Thread(target=self._give_signs, daemon=True).start()

    def release(self) -> None:
        """Leave the folder to others."""
        self._released.set()
        if _read(self._owner) == self._mine:
            self._owner.unlink(missing_ok=True)
        _held.discard(self._descriptor)
        os.close(self._descriptor)

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(folder, self._owner) from None
        except OSError:
            return  # a file system without locks: the owner's file alone decides

    def _claim(self, folder: Path) -> None:
        for _ in range(100):
            try:
                with self._owner.open("x") as file:
                    file.write(self._mine)
                return
            except FileExistsError:
                self._take_from_the_dead(folder)
        raise _in_use(folder, self._owner)

    def _take_from_the_dead(self, folder: Path) -> None:
        """Remove the file of a dead owner. Two that find it at once may each remove what the other has written."""
        found = _read(self._owner)
        if found is None:
            return
        if _lives(found, _age(folder, self._owner)):
            raise _in_use(folder, self._owner)
        aside = self._owner.with_name(f".owner.{socket.gethostname()}.{os.getpid()}")
        try:
            self._owner.rename(aside)
        except FileNotFoundError:
            return
        if _read(aside) != found and not self._owner.exists():  # another one's, who was faster: back with it
            aside.rename(self._owner)
        else:
            aside.unlink(missing_ok=True)

    def _give_signs(self) -> None:
        while not self._released.wait(SIGN_EVERY):
            try:
                os.utime(self._owner)
            except OSError:  # the folder has been moved or removed
                return


def in_use(folder: Path) -> bool:
    """Whether a process that lives owns ``folder``."""
    owner = _read(folder / ".owner")
    return owner is not None and _lives(owner, _age(folder, folder / ".owner"))


def _let_go() -> None:
    """A data loader's worker that outlives its owner for seconds would hold the lock that it was forked with."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "space": _space(), "started": _started(os.getpid())}


def _lives(owner: str, age: float) -> bool:
    try:
        told = json.loads(owner)
        host, space, pid, started = (told[key] for key in ("host", "space", "pid", "started"))
    except (ValueError, KeyError, TypeError):
        return age < SILENT  # half written, by a process that was killed or is at it
    boot, _, names = _space().partition(" ")
    if (host, space.partition(" ")[2]) != (socket.gethostname(), names):
        return age < SILENT
    return space.partition(" ")[0] == boot and _exists(pid) and _started(pid) == started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _space() -> str:
    """What process ids refer to: this start of the machine, and the container's own numbers. Empty off Linux."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: a number that has been given again is another process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _age(folder: Path, file: Path) -> float:
    """Seconds since the last sign, both by the clock of the disk: those of two hosts may differ."""
    probe = folder / f".now.{socket.gethostname()}.{os.getpid()}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    try:
        return now - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _in_use(folder: Path, owner: Path) -> InUseError:
    who = "another process"
    for _ in range(1000):  # ten seconds: it may have the lock and not have written yet
        try:
            told = json.loads(_read(owner) or "")
            who = f"process {told['pid']} on {told['host']} since {told['since']}"
            break
        except (ValueError, KeyError, TypeError):
            time.sleep(0.01)
    wait = f"one on another host that is gone is noticed after {SILENT:.0f} s"
    return InUseError(f"the run folder {folder} is in use by {who}; wait for it or change name= ({wait})")
