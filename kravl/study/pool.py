"""The processes that train in parallel: how many, with which threads and GPU, and how they end."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from kravl.runtime.shared import share_of_memory
from kravl.study.worker import GRACE, WorkerResult, work
from kravl.tracking.run_folder import LOG

MAX_CPU_WORKERS = 4  # unless jobs= says otherwise: each loads torch and a model of its own
# of glibc: blocks of up to 32 MB, its largest setting, stay with a process; otherwise activations of a small model are
# returned to the system and faulted in again at every step, page by page
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(2 << 30)}


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def gpus() -> list[str]:
    """Numbers of the NVIDIA GPUs that this process may use, found without torch, which takes seconds to load."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _context() -> Any:
    """Processes are forked from one that has loaded torch and started no thread: that memory and time is spent once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kravl.run.train"])
    for name, size in MALLOC.items():  # read when that process starts
        os.environ.setdefault(name, size)
    return context


def begin_loading() -> None:
    """Let the process that workers are forked from load torch now, while this one reads and checks what they train."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        _context()
        with _deaf_to_hangup():
            forkserver.ensure_running()


@contextmanager
def _deaf_to_hangup() -> Iterator[None]:
    """Within the block processes start that a closed terminal does not end: this one ends them when they have saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, handler)


class Worker:
    """One process, its threads, its GPU if there is one, and bytes to share; it trains one run at a time."""

    def __init__(self, threads: int, gpu: str | None, shared_bytes: int) -> None:
        context = _context()
        self._connection, child_end = context.Pipe()
        self.gpu = gpu
        self.process = context.Process(target=work, args=(child_end, threads, gpu, shared_bytes))
        with _deaf_to_hangup():
            self.process.start()
        child_end.close()
        self.handles: tuple[Connection, int] = (self._connection, self.process.sentinel)  # one is ready when a run ends
        self._log = Path()

    def submit(self, folder: Path, cfg: Any) -> None:
        """Train a run in ``folder``, which exists."""
        self._log = folder / LOG
        self._connection.send((cfg, folder))

    def result(self) -> WorkerResult:
        """The result of its run; if the process was killed or crashed, the reason comes from its log."""
        try:
            result: WorkerResult = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            if killed := code < 0:  # the log does not say why, its last line is about something else
                reason = f"{_signal_reason(-code)}; its log ends with {_last_message(self._log)!r}"
            else:
                reason = f"{_last_message(self._log)} (its process ended with exit code {code})"
            return WorkerResult("killed" if killed else "failed", reason, last=True)
        return result

    def close(self) -> None:
        """There are no more runs: the process exits."""
        self._connection.close()


class WorkerPool:
    """Up to ``jobs`` workers (None: one per GPU, else one per core but at most four), started when there is work."""

    def __init__(self, jobs: int | None) -> None:
        devices = gpus()
        self.size = jobs or len(devices) or min(cores(), MAX_CPU_WORKERS)
        self._threads = max(1, cores() // self.size) if devices else 1
        self._shared_bytes = share_of_memory(self.size)
        self._free: list[str | None] = [devices[i % len(devices)] if devices else None for i in range(self.size)]
        self._idle: list[Worker] = []
        self._training: dict[int, Worker] = {}

    @property
    def num_training(self) -> int:
        return len(self._training)

    def submit(self, position: int, folder: Path, cfg: Any) -> None:
        """Let a worker train the run at ``position``; one must be free."""
        worker = self._idle.pop() if self._idle else Worker(self._threads, self._free.pop(), self._shared_bytes)
        self._training[position] = worker
        worker.submit(folder, cfg)

    def poll(self, seconds: float) -> list[tuple[int, WorkerResult]]:
        """Position and result of each run that ended, after at most ``seconds``."""
        ready = wait([sign for worker in self._training.values() for sign in worker.handles], seconds)
        ended = [position for position, worker in self._training.items() if set(worker.handles) & set(ready)]
        return [(position, self._take_result(position)) for position in ended]

    def _take_result(self, position: int) -> WorkerResult:
        worker = self._training.pop(position)
        result = worker.result()
        if result.last:
            worker.close()
            self._free.append(worker.gpu)
        else:
            self._idle.append(worker)
        return result

    def shutdown(self) -> None:
        """Ask the runs in progress to save their state and stop, and wait for all processes."""
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


def _last_message(log: Path) -> str:
    lines = []
    if log.is_file() and not log.is_symlink():  # a pipe would be waited for
        with suppress(OSError):
            lines = log.read_text(errors="replace").strip().splitlines()
    # the line of an exception, which indented ones may follow
    return next((line[:300] for line in reversed(lines) if line[:1].strip()), "it printed nothing")


def _signal_reason(number: int) -> str:
    """What it means that a process was ended by the signal ``number``."""
    meanings: dict[int, str] = {
        signal.SIGKILL: "as the system does when memory runs out: fewer --jobs or a smaller batch need less",
        signal.SIGTERM: "from outside",
        signal.SIGBUS: "as where a disk or /dev/shm is full",
    }
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    return f"its process was ended by signal {number} ({name}), {meanings.get(number, 'a crash of compiled code')}"
