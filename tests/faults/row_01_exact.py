"""Going on is exact: at the end of an epoch, within one, among summed gradients, with workers and processes."""

import signal
import socket
from itertools import product
from pathlib import Path
from typing import Any

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, differing_bits, start, unbroken

# three batches an epoch: the steps after which a run dies, with the settings that decide what a step is
PLACES = {
    "within an epoch": ((4, 8), ()),
    "at the end of an epoch": ((6, 10), ()),
    "at the start of training": ((0, 3), ()),
    "while accumulating": ((1, 4), ("++trainer.accumulate_grad_batches=2",)),
}
WORKERS, STRATEGIES = (0, 2), (None, "ddp", "fsdp")  # None is one process, else two
DROPOUT = "adapter.dropout=0.2"


def goes_on_exactly(count: int, folder: Path) -> Outcome:
    """The first ``count`` combinations of strategy, workers and place: killed twice, then compared bit for bit."""
    cases = list(product(STRATEGIES, WORKERS, PLACES))[:count]
    failures = []
    for strategy, workers, place in cases:
        (steps, settings), name = PLACES[place], f"{strategy}-{workers}-{place.replace(' ', '_')}"
        settings = ("method=lora", DROPOUT, f"loading.num_workers={workers}", *settings)
        settings += ("++trainer.devices=2", f"++trainer.strategy={strategy}") if strategy else ()
        processes = 2 if strategy else 1
        whole = unbroken(*settings) if processes == 1 else folder / name / "unbroken"
        ended = [_run(whole, settings, processes, None)] if processes > 1 else [0]
        earlier = 0
        for step in steps:
            # the first save of a fresh start is that of step 0
            dies_at = step + 2 if not earlier else step - earlier + 1
            ended.append(_run(folder / name / "broken", settings, processes, dies_at))
            earlier = step
        ended.append(_run(folder / name / "broken", settings, processes, None))
        if ended != [0, -signal.SIGKILL, -signal.SIGKILL, 0]:
            failures.append(f"{name}: exit codes {ended}")
        elif differing := differing_bits(folder / name / "broken", whole):
            failures.append(f"{name}: {differing} differ")
    return Outcome(len(cases), f"{len(cases) - len(failures)} of {len(cases)} equal bit for bit", failures)


def _run(folder: Path, settings: tuple[str, ...], processes: int, dies_at: int | None) -> int:
    """Exit code of the first process; it dies before its ``dies_at``-th save, and the others with it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    cfg = configured(folder, *settings)
    group = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(_free_port())), ("WORLD_SIZE", str(processes))]
    hook = None if dies_at is None else AtCall("kravl.training.checkpoint:_write", dies_at, Send((signal.SIGKILL,)))
    started: list[Any] = []
    for rank in range(processes):
        environment = [*group, ("LOCAL_RANK", str(rank)), ("NODE_RANK", "0")] if processes > 1 else ()
        started.append(start(cfg, folder.parent / f"{rank}.log", hook if rank == 0 else None, environment))
    started[0].join()
    for other in started[1:]:
        other.join(10 if started[0].exitcode == 0 else 0)
        other.kill()  # as a scheduler does when one of a job's processes has died
        other.join()
    return started[0].exitcode


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


ROW = Row(
    1,
    "killed after a given step, twice: 0 and 2 workers, one process, ddp and fsdp, accumulated gradients, dropout",
    "0 differing bits",
    len(PLACES) * len(WORKERS) * len(STRATEGIES),
    1,
    goes_on_exactly,
)
