"""What runs of one process have in common, computed once: a worker of a study keeps it, any other process nothing.

What is shared, and by what it is found, which is all that decides it:

- an image's pixels as they are kept for training or evaluation, and whether it can be read (data/loading/cache.py,
  data/source.py): `Opener.identity` of the image, with the largest image allowed, and the transform;
- digests of files, and of images without one (data/inspect/fingerprint.py): the same identity;
- a pretrained model (backbones/weights/shared_model.py): its name, settings and config, its files, and the state of the
  random numbers before, by which it is initialised;
- the pretrained model's predictions, and image features where only a head trains (run/evaluate.py): every weight and
  class of a module, prompts, images, labels and batches, the settings of model and trainer, the number of threads.

A file is its path, size and time of change. Versions, device and modes of torch are the same for all runs of a worker.
What is kept is never a tensor that a run may change: of a model each run gets a copy, with the random numbers as
loading would have left them; all else is only read. What loading says of weights is in the log of the run that loads.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
Key = tuple[Hashable, ...]
MEMORY = Path("/proc/meminfo")
SHARE = 4  # a quarter of the memory that is available when the workers start is for what all of them keep
UNKNOWN = 2**28  # bytes, where the system does not tell
ENTRY = 1024  # bytes that a key and its places take, more than was seen


class Store:
    """Values by key in at most ``limit`` bytes; those unused for longest leave first."""

    def __init__(self, limit: int) -> None:
        self._limit, self._taken, self._process = limit, 0, os.getpid()
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()  # images are read by several threads

    def get(self, key: Key) -> Any:
        """The value of ``key``; None if there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def fits(self, num_bytes: int) -> bool:
        """Whether a value of so many bytes is kept: by a worker, not by each process that it forks to load images."""
        return num_bytes <= self._limit and os.getpid() == self._process

    def keep(self, key: Key, value: Any, num_bytes: int) -> None:
        """Keep ``value``, which takes so many bytes, unless it alone takes more than all may."""
        with self._lock:
            if not self.fits(num_bytes) or key in self._kept:
                return
            self._kept[key] = value, num_bytes
            self._taken += num_bytes
            while self._taken > self._limit:
                _, (_, freed) = self._kept.popitem(last=False)
                self._taken -= freed


_stores: list[Store] = []  # at most one


@contextmanager
def sharing(limit: int) -> Iterator[None]:
    """Within the block `shared` keeps up to ``limit`` bytes."""
    _stores.append(Store(limit))
    try:
        yield
    finally:
        _stores.pop()


def is_sharing() -> bool:
    """Whether this process keeps anything: where it does not, keys need not be made."""
    return bool(_stores)


def shared(
    key: Key | None,
    make: Callable[[], T],
    num_bytes: Callable[[T], int] = sys.getsizeof,
    copy: Callable[[T], T] | None = None,
) -> T:
    """What ``make`` gives, or gave for an equal ``key``; None is nobody else's.

    Args:
        num_bytes: that a value takes.
        copy: for values that a caller may change: each gets one of its own.
    """
    if not _stores or key is None:
        return make()
    kept: T | None = known(key)
    if kept is not None:
        return kept if copy is None else copy(kept)
    value = make()
    if _stores[-1].fits((taken := num_bytes(value)) + ENTRY):  # else a copy would be for nothing
        keep(key, value if copy is None else copy(value), taken)
    return value


def known(key: Key) -> Any:
    """The value that is kept of ``key``; None if there is none."""
    return _stores[-1].get(key) if _stores else None


def keep(key: Key, value: object, num_bytes: int) -> None:
    """Keep ``value``, which nobody may change from now on, where this process keeps anything."""
    if _stores:
        _stores[-1].keep(key, value, num_bytes + ENTRY)


def file_state(path: Path) -> Key | None:
    """What tells that a file has not changed; None where it cannot be found."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def available_memory() -> int | None:
    """Bytes that a process may take without another giving some up; None where the system does not tell."""
    try:
        lines = MEMORY.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] if sizes else None


def share_of_memory(processes: int) -> int:
    """Bytes that each of so many processes that start now may keep."""
    return ((available_memory() or SHARE * UNKNOWN) // SHARE) // processes
