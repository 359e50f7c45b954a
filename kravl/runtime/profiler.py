"""What each phase of a run costs: seconds and peak memory."""

import re
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from kravl.runtime.signals import raise_if_stopped

Costs = Mapping[str, Mapping[str, float]]  # as `Profiler.costs`
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Profiler:
    """Measures the phases of one run; ``costs`` is phase -> ``seconds``, ``peak_memory_bytes``, ``peak_gpu_bytes``.

    Process memory is the resident set; its peak is the phase's own where the system can reset it (Linux), else that of
    the process so far. GPU memory is what PyTorch has allocated, 0 without a GPU.
    """

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the block, and add it to an earlier one of its name; one that raises leaves no entry.

        Raises:
            Interrupted: the process was asked to stop.
        """
        raise_if_stopped()
        _reset_peaks()
        begin = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        cost = {"seconds": time.perf_counter() - begin, "peak_memory_bytes": _peak(), "peak_gpu_bytes": _gpu_peak()}
        before = self.costs.get(name, dict.fromkeys(cost, 0))
        self.costs[name] = {key: max(before[key], value) for key, value in cost.items()}
        self.costs[name]["seconds"] = before["seconds"] + cost["seconds"]


def seconds(costs: Costs, *names: str) -> float:
    """The sum over these phases; those that did not run count as 0."""
    return sum(costs[name]["seconds"] for name in names if name in costs)


def peak(costs: Costs, key: str) -> float:
    """The largest ``key`` of any phase."""
    return max((cost[key] for cost in costs.values()), default=0)


def _reset_peaks() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return  # not Linux, or not permitted: peaks are those of the process so far


def _peak() -> int:
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        match = None
    kibibytes = int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024


def _gpu_peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
