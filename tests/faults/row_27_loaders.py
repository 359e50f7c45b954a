"""A data loader's worker that dies, and too few file handles for workers: a line, and the same command goes on."""

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.victims import configured, differing_bits, run, unbroken

WORKERS = ("loading.num_workers=2",)


@dataclass(frozen=True)
class KillWorker:
    """Kill one of the loader's workers at the ``number``-th training step."""

    number: int
    signal: int = signal.SIGKILL

    def __call__(self) -> None:
        from kravl.training.learner import Learner

        original, calls = Learner.training_step, [0]

        def step(learner: Learner, batch: object, batch_idx: int) -> object:
            calls[0] += 1
            if calls[0] == self.number:
                (*_, child) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                os.kill(int(child), self.signal)
            return original(learner, batch, batch_idx)

        Learner.training_step = step  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class FewHandles:
    """At most ``limit`` file handles."""

    limit: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.limit))


def workers(count: int, folder: Path) -> Outcome:
    """``count`` faults, each ended in one line; then the same command ends equal."""
    failures = []
    for i, fault in enumerate(FAULTS[:count]):
        place, out = folder / str(i), folder / f"{i}.log"
        code = run(configured(place, *WORKERS), out, fault)
        text = out.read_text(errors="replace").replace("\0", "")  # torch's, of a worker that crashes
        # a process that is not the command shows an InputError, which that prints as a line, in an exception
        told = [line for line in text.splitlines() if line.startswith(("error: ", "kravl.runtime.errors.InputError: "))]
        if code != 1 or len(told) != 1 or ("Traceback" in text and "InputError: loading.num_workers" not in text):
            failures.append(f"{fault}: exit code {code}, {text.strip().splitlines()[-1:]}")
        elif run(configured(place, *WORKERS), out) != 0 or differing_bits(place, unbroken(*WORKERS)):
            failures.append(f"{fault}: did not go on to the same end")
    return Outcome(count, f"{count} faults, {len(failures)} wrong", failures)


FAULTS: tuple[Callable[[], None], ...] = (
    KillWorker(5),
    FewHandles(24),
    FewHandles(64),
    FewHandles(105),
    KillWorker(1),
    KillWorker(5, signal.SIGSEGV),
)
GATE = "a line each; the same command ends equal, bit for bit"
ROW = Row(27, "a loader's worker dies, or there are too few file handles", GATE, 6, 2, workers)
