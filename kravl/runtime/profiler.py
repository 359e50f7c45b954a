"""What each phase of a run took: seconds, and the most memory that it held."""

import re
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from kravl.runtime.signals import raise_if_stopped

Costs = Mapping[str, Mapping[str, float]]  # as those of `Profiler`
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Profiler:
    """Measures the phases of one run; ``costs`` is phase -> ``seconds``, ``peak_memory_bytes``, ``peak_gpu_bytes``.

    Memory of the process is what is resident, its peak that of the phase alone where the system can forget an earlier
    one (Linux), else that of the process so far. That of a GPU is what PyTorch has allocated, and 0 without one.
    """

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the block; one that raises leaves no entry. Raises Interrupted where the process was asked to end."""
        raise_if_stopped()
        _forget_peaks()
        begin = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        self.costs[name] = {"seconds": seconds, "peak_memory_bytes": _peak(), "peak_gpu_bytes": _gpu_peak()}


def seconds(costs: Costs, *names: str) -> float:
    """Of these phases together, as far as there were any."""
    return sum(costs[name]["seconds"] for name in names if name in costs)


def peak(costs: Costs, key: str) -> float:
    """The largest ``key`` of any phase."""
    return max((cost[key] for cost in costs.values()), default=0)


def _forget_peaks() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return  # not Linux, or not allowed: the peak of the process so far


def _peak() -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        found = None
    kibibytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024


def _gpu_peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
