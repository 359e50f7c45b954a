"""A run that is killed ends with the same bits in every precision in which weights or products are kept."""

import signal
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, differing_bits, run, unbroken

PRECISIONS = ("64-true", "bf16-true", "bf16-mixed", "16-true")


def exact(count: int, folder: Path) -> Outcome:
    """``count`` precisions: killed in training, then before the evaluation, and started again after each."""
    failures = []
    for precision in PRECISIONS[:count]:
        setting, place = f"trainer.precision={precision}", folder / precision
        for fault in ("kravl.training.checkpoint:_write", "kravl.run.train:evaluate"):
            at = AtCall(fault, 6 if "checkpoint" in fault else 1, Send((signal.SIGKILL,)))
            if run(configured(place, setting), folder / "log.txt", at) != -signal.SIGKILL:
                failures.append(f"{precision}: not killed at {fault}")
        if run(configured(place, setting), folder / "log.txt") != 0:
            failures.append(f"{precision}: did not go on")
        elif differing := differing_bits(place, unbroken(setting)):
            failures.append(f"{precision}: {differing}")
    return Outcome(count, f"{count} precisions, {len(failures)} different", failures)


ROW = Row(24, "killed twice in other precisions", "4 of 4 equal bit for bit", 4, 1, exact)
