"""Evaluation that dies after training, whatever of: the same command evaluates, without training, to the same end."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, FillDisk, Send
from faults.victims import configured, differing_bits, run, unbroken

SCORE, DETAILS = "kravl.run.evaluate:score", "kravl.run.train:write_details"
# nothing that decides a number: what a user changes where memory or time is short
ELSEWHERE = ("loading.eval_batch_size=7", "loading.num_workers=1", "trainer.deterministic=false", "checkpoint_every=5")


@dataclass(frozen=True)
class NoMemory:
    """Ask the allocator for more than any machine has: its own error."""

    def __call__(self) -> None:
        import torch

        torch.empty(2**50, dtype=torch.uint8)


@dataclass(frozen=True)
class Damage:
    """Cut a file off in the middle."""

    file: Path

    def __call__(self) -> None:
        self.file.write_bytes(self.file.read_bytes()[:100])


@dataclass(frozen=True)
class FillDiskButLog:
    """Leave room for 100 bytes a file, except for what this process prints: another one writes that."""

    folder: Path

    def __call__(self) -> None:
        with (self.folder / "disk.log").open("a") as log:
            writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
        assert writer.stdin is not None
        for stream in (1, 2):
            os.dup2(writer.stdin.fileno(), stream)
        FillDisk(100)()


def dies_evaluating(count: int, folder: Path) -> Outcome:
    """``count`` reasons to die: each is a line and costs no training, then the same command ends as if nothing was."""
    failures = []
    configured(folder / "memory")  # draws the letters
    for name, (place, action, line) in list(_reasons(folder).items())[:count]:
        runs, log = folder / name, folder / f"{name}.log"
        code = run(configured(runs), log, AtCall(place, 1, action(folder)))
        if code != 1 or not _says(log, line):
            failures.append(f"{name}: exit code {code}, see {log}")
        _mend(folder)
        changes = ELSEWHERE if name == "other settings" else ()
        again = run(configured(runs, *changes), log, AtCall(*TRAINS))
        if again != 0 or len(list(runs.glob("*/seed*"))) != 1:
            failures.append(f"{name}: the same command ended with {again}, see {log}")
        elif (bits := differing_bits(runs, unbroken())) and not changes:
            failures.append(f"{name}: {bits} differ")
    count = min(count, 4)
    return Outcome(count, f"{count} ends, {len(failures)} trained again or different", failures)


TRAINS = ("kravl.training.learner:Learner.training_step", 1, Send((signal.SIGKILL,)))
Reason = tuple[str, Callable[[Path], Callable[[], None]], str]


def _reasons(folder: Path) -> dict[str, Reason]:
    """Name -> before which call it dies, of what, and what the run says."""
    return {
        "memory": (SCORE, lambda _: NoMemory(), "out of memory"),
        "image": (
            "kravl.run.train:evaluate",
            lambda at: Damage(_test_image(at)),
            "test/A/0.png: image file is truncated",
        ),
        "disk": (DETAILS, FillDiskButLog, "details.json: File too large"),
        "other settings": (SCORE, lambda _: NoMemory(), "out of memory"),
    }


def _test_image(folder: Path) -> Path:
    return sorted((folder / "letters/glyphs/test").rglob("*.png"))[0]


def _says(log: Path, line: str) -> bool:
    """Whether the line is in the log, or comes within a second: the process that writes it may be a moment behind."""
    for _ in range(10):
        if line in log.read_text():
            return True
        time.sleep(0.1)
    return False


def _mend(folder: Path) -> None:
    """Put the letters back that `configured` writes where there are none."""
    shutil.rmtree(folder / "letters")
    configured(folder / "memory")


ROW = Row(
    22,
    "evaluation dies after training: memory, an image, disk",
    "a line; the same command trains no step and ends equal, bit for bit",
    4,
    2,
    dies_evaluating,
)
