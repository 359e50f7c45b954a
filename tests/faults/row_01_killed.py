"""A run that is killed at any moment, and started again by the same command, ends like one that was not."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.victims import configured, differing_bits, expected_line, leftovers, start, unbroken

MOST_A_RUN = 6  # kills of one run before it is left to end


class Clock:
    """How long a run lasts from its first state on, as far as is known: other work on the machine changes it."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def learn(self, killed: bool) -> None:
        """A kill that came too late says that a run is shorter, one that came in time that it may be longer."""
        self.seconds *= 1.1 if killed else 0.8


def killed_at_random(count: int, folder: Path, environment: Sequence[tuple[str, str]] = ()) -> Outcome:
    """Kill ``count`` times at a random moment of training, saving or evaluating; each time the same command again."""
    rng, failures, where = random.Random(0), [], Counter[str]()
    unbroken()  # what processes are forked from is loaded now
    clock = Clock()
    killed = runs = 0
    while killed < count:
        place, log = folder / f"run{runs}", folder / f"run{runs}.log"
        mine = 0
        while mine < MOST_A_RUN and killed < count and (phase := _kill_once(place, log, rng, clock, environment)):
            mine, killed = mine + 1, killed + 1
            where[phase] += 1
        line = expected_line(place)
        ended = start(configured(place), log, environment=environment)
        ended.join()
        if ended.exitcode != 0:
            failures.append(f"run {runs}: exit code {ended.exitcode}, see {log}")
        elif differing := differing_bits(place, unbroken()):
            failures.append(f"run {runs}: {differing} differ")
        if line and line not in log.read_text():
            failures.append(f"run {runs}: did not say: {line}")
        failures += [f"run {runs}: left {name}" for name in leftovers(place)]
        runs += 1
    phases = ", ".join(f"{number} {name}" for name, number in sorted(where.items()))
    return Outcome(killed, f"{killed} kills of {runs} runs ({phases}), {len(failures)} lost or different", failures)


def _kill_once(
    place: Path, log: Path, rng: random.Random, clock: Clock, environment: Sequence[tuple[str, str]]
) -> str | None:
    """Where the run was when it was killed; None if it ended before."""
    process = start(configured(place), log, environment=environment)
    while process.is_alive() and not list(place.glob("*/*/checkpoints")):
        time.sleep(0.005)
    process.join(rng.uniform(0, clock.seconds))
    clock.learn(killed=process.exitcode is None)
    if process.exitcode is not None:
        return None
    process.kill()
    process.join()
    if list(place.glob("*/*/metrics.json")) or list(place.glob("*/*/adapter.safetensors")):
        return "after evaluation"
    if list(place.glob("*/*/checkpoints/.step*")):
        return "while saving"
    return "while evaluating" if list(place.glob("*/*/checkpoints/step=12.ckpt")) else "in training"


ROW = Row(
    1,
    "SIGKILL at random times of training and saving, then the same command again",
    "0 lost runs, 0 differing bits",
    200,
    3,
    killed_at_random,
)
