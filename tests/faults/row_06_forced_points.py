"""Death just before each change that a run makes to its folder of states: there is always one newest whole state."""

import signal
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import KillAtFileEvent
from faults.victims import configured, differing_bits, expected_line, leftovers, run, unbroken

FIRST_COUNT = 20  # at 1, 2, ... these events in full; a quick campaign takes every few of them
LAST = 100


def killed_at_each_change(count: int, folder: Path) -> Outcome:
    """Die before file event 1 to 100 in ``checkpoints`` (``count`` of them), then the same command again."""
    failures = []
    points = range(1, LAST + 1) if count >= LAST else [1 + i * FIRST_COUNT // count for i in range(count)]
    for point in points:
        place, log = folder / str(point), folder / f"{point}.log"
        code = run(configured(place), log, KillAtFileEvent("/checkpoints", point))
        line = expected_line(place)
        again = run(configured(place), log)
        if code != -signal.SIGKILL:
            failures.append(f"event {point} never came: exit code {code}")
        elif again != 0 or differing_bits(place, unbroken()):
            failures.append(f"event {point}: exit code {again}, or another end")
        elif line and line not in log.read_text():
            failures.append(f"event {point}: did not say: {line}")
        failures += [f"event {point}: left {name}" for name in leftovers(place)]
    return Outcome(len(points), f"{len(points)} kills, {len(failures)} ambiguous or different", failures)


ROW = Row(
    6,
    "killed between any two changes of files: weights, manifest, renaming, deleting the old",
    "0 ambiguous, 0 orphans after the next start",
    LAST,
    2,
    killed_at_each_change,
)
