"""The processes that train side by side: how many, with which threads and GPU, and how they are ended."""

import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from kravl.study.worker import LOG, WorkerResult, work

MOST = 4  # processes without a GPU unless result otherwise: each holds torch and a model of its own
GRACE = 120.0  # seconds that a run has to save its state when it is asked to end
# glibc's: memory of up to 32 MB, its largest setting, stays with a process; activations of a small model are otherwise
# given back to the system and faulted in again at every step, page by page
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(2 << 30)}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def gpus() -> list[str]:
    """Numbers of the NVIDIA GPUs that this process may use; asked without torch, which takes seconds to load."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _context() -> Any:
    """Processes are forked from one that has loaded torch and begun no thread: memory and seconds are spent once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kravl.run.train"])
    for name, size in MALLOC.items():  # read when that process begins
        os.environ.setdefault(name, size)
    return context


class Worker:
    """One process, its number of threads, and its GPU if there is one; it trains one run at a time."""

    def __init__(self, threads: int, gpu: str | None) -> None:
        context = _context()
        self._connection, theirs = context.Pipe()
        self.gpu = gpu
        self.process = context.Process(target=work, args=(theirs, threads, gpu))
        self.process.start()
        theirs.close()
        self.handles: tuple[Connection, int] = (self._connection, self.process.sentinel)  # one is ready when a run ends
        self._log = Path()

    def submit(self, folder: Path, cfg: Any) -> None:
        """Train a run in ``folder``, which exists."""
        self._log = folder / LOG
        self._connection.send((cfg, folder))

    def result(self) -> WorkerResult:
        """What became of its run; a process that was ended or broke says it through its log."""
        try:
            result: WorkerResult = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return WorkerResult("failed", f"{_end_of(self._log)} ({_ending(self.process.exitcode)})", last=True)
        return result

    def close(self) -> None:
        """Its last run is over; it ends by itself."""
        self._connection.close()


class WorkerPool:
    """At most ``jobs`` workers (None: one a GPU, without one one a core, at most four), begun when there is work."""

    def __init__(self, jobs: int | None) -> None:
        found = gpus()
        self.size = jobs or len(found) or min(cores(), MOST)
        self._threads = max(1, cores() // self.size) if found else 1
        self._places: list[str | None] = [found[i % len(found)] if found else None for i in range(self.size)]
        self._idle: list[Worker] = []
        self._training: dict[int, Worker] = {}

    @property
    def num_training(self) -> int:
        return len(self._training)

    def submit(self, position: int, folder: Path, cfg: Any) -> None:
        """Let a worker train the run at ``position``; there must be one without a run."""
        worker = self._idle.pop() if self._idle else Worker(self._threads, self._places.pop())
        self._training[position] = worker
        worker.submit(folder, cfg)

    def poll(self, seconds: float) -> list[tuple[int, WorkerResult]]:
        """Position and end of each run that ended, after at most so many ``seconds``."""
        ready = wait([sign for worker in self._training.values() for sign in worker.handles], seconds)
        ended = [position for position, worker in self._training.items() if set(worker.handles) & set(ready)]
        return [(position, self._end_of_run(position)) for position in ended]

    def _end_of_run(self, position: int) -> WorkerResult:
        worker = self._training.pop(position)
        result = worker.result()
        if result.last:
            worker.close()
            self._places.append(worker.gpu)
        else:
            self._idle.append(worker)
        return result

    def end(self) -> None:
        """Ask what still trains to save its state and end, and wait for it."""
        for worker in self._training.values():
            worker.process.terminate()
        for worker in self._idle:
            worker.close()
        deadline = time.monotonic() + GRACE
        for worker in self._training.values():
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.close()
        for worker in [*self._training.values(), *self._idle]:
            worker.process.join()


def _end_of(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    # an exception's own line, which indented ones may follow
    return next((line[:300] for line in reversed(lines) if line[:1].strip()), "it printed nothing")


def _ending(exitcode: int | None) -> str:
    ended = f"by signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"with exit code {exitcode}"
    return f"its process ended {ended}"
