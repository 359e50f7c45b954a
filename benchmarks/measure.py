"""What every benchmark measures with: interleaved times, bytes kept and allocated, and the machine's floor.

Imports nothing but PyTorch and the standard library, so that it runs wherever PyTorch does.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]
SHORTEST = 0.02  # seconds; a shorter run is repeated within one timing
LONG = 1.0  # seconds; of a longer run what is paid once is no matter
WARM = 0.5  # seconds of products that raise a GPU's clocks to what they are under load
PRODUCT = {"cpu": (2048, 4096, 2048), "cuda": (16384, 4096, 4096)}  # m, k, n of the product that sets the floor
COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes, larger than any cache
# an operation that PyTorch's counter leaves out; of the shapes of its operands
IN_PLACE = {torch.ops.aten.addmm_: lambda y, a, b, **_: 2 * a[0] * a[1] * b[1]}


def clock(device: str) -> Callable[[], float]:
    """Seconds: of this process where it has one thread, which other processes disturb less; else of the wall."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def seconds(run: Run, device: str, repeats: int = 1) -> float:
    """Of one run, with the work that it queued on the device, whose own clock is taken there (CUDA events)."""
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats
    now = clock(device)
    start = now()
    for _ in range(repeats):
        run()
    return (now() - start) / repeats


def warm(device: str) -> None:
    """Multiply until a GPU's clocks are up; nothing on a CPU, whose first runs are not counted anyway."""
    if device != "cuda":
        return
    a, begin = torch.randn(4096, 4096, device=device, dtype=torch.float16), time.perf_counter()
    while time.perf_counter() - begin < WARM:
        a @ a
        torch.cuda.synchronize()


def interleaved(runs: Mapping[str, Run], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each run in each round; every round has them all, in turn, so that a disturbance meets them all."""
    repeats = {}
    for name, run in runs.items():
        first = seconds(run, device)  # with what is paid once, such as the choice of a kernel
        again = first if first > LONG else seconds(run, device)
        repeats[name] = max(1, math.ceil(SHORTEST / max(again, 1e-9)))
    warm(device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, device, repeats[name]))
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Median over rounds of ``times`` over ``reference`` in the same round."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def saved_bytes(run: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Bytes that the graph of ``run()`` keeps for the backward pass, each storage once, without those of ``known``."""
    seen = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
            if (address := part.untyped_storage().data_ptr()) not in seen:
                kept[address] = part.detach()  # held, so that its address is not given to another
        return tensor.detach()  # itself it would hold the node that holds it, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def graph_bytes(run: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """As `saved_bytes`, read from the graph after it was made; for a ``run`` without gradient checkpointing.

    Hooks would keep kravl from leaving out what it can recompute, and hold what a method drops before it ends.
    """
    seen = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, int] = {}
    result = run()
    for tensor in _saved_in_graph(result.grad_fn):
        for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
            storage = part.untyped_storage()
            if storage.data_ptr() not in seen:
                kept[storage.data_ptr()] = storage.nbytes()
    return sum(kept.values())


def _saved_in_graph(root: Any) -> Iterator[Tensor]:
    """What each node behind ``root`` saved, by its attributes; not what a hook packed."""
    nodes, visited = [root], {None}
    while nodes:
        if (node := nodes.pop()) in visited:
            continue
        visited.add(node)
        nodes += [behind for behind, _ in node.next_functions]
        for value in (getattr(node, name) for name in dir(node) if name.startswith("_raw_saved_")):
            parts = value if isinstance(value, tuple | list) else [value]
            yield from (part.data for part in parts if part.unpack_hook is None and isinstance(part.data, Tensor))


def peak_bytes(run: Run, device: str) -> int:
    """The most that ``run`` holds at once, in bytes, beyond what was allocated before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns()))
    return max(held, default=0)


def operations(run: Run) -> int:
    """Floating-point operations of the matrix products and attention of ``run``: two for a multiply-add."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        run()
    return counter.get_total_flops()


class Floor:
    """A large matrix product, timed in every round beside the runs: what the machine could do at that moment."""

    NAME = "a large product"

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        self._device = device
        m, k, n = PRODUCT[device]
        self._operations = 2 * m * k * n
        self._a = torch.randn(m, k, device=device, dtype=dtype)
        self._b = torch.randn(n, k, device=device, dtype=dtype)
        self._seconds: list[float] = []

    def beside(self, runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
        """`interleaved` with the product as one more run."""
        times = interleaved({self.NAME: lambda: self._a @ self._b.T, **runs}, rounds, self._device)
        self._seconds += times[self.NAME]
        return times

    def share(self, times: Mapping[str, Sequence[float]], name: str, done: int, least: float = 0.0) -> float:
        """Percent of the floor that run ``name`` reaches, median over rounds.

        Args:
            done: operations of the run.
            least: seconds that moving its bytes takes; the floor where its operations take less.
        """
        floors = [max(least, done / self._operations * spent) for spent in times[self.NAME]]
        return 100 * ratio(floors, times[name])

    def facts(self) -> dict[str, float]:
        """The rate of the product over all rounds so far, for a record."""
        return {"product_gflop_per_s": self._operations / statistics.median(self._seconds) / 1e9}


def copy_bandwidth(device: str, rounds: int = 9) -> float:
    """Bytes per second of a large copy, those read and those written."""
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return (
        2 * len(source) / statistics.median(interleaved({"copy": lambda: target.copy_(source)}, rounds, device)["copy"])
    )
