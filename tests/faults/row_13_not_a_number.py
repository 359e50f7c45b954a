"""A loss or a gradient that is no number stops the run at that step, by name of the images, with a good state left."""

import re
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import Poison
from faults.victims import configured, expected_state, run
from safetensors.torch import load_file

STEPS = (1, 2, 4, 7, 12)


def not_a_number(count: int, folder: Path) -> Outcome:
    """``count`` runs of which a weight is spoilt before a step, and one whose learning rate is absurd."""
    failures = []
    for step in STEPS[:count]:
        place, log = folder / str(step), folder / f"{step}.log"
        code = run(configured(place), log, Poison(step))
        said = log.read_text()
        state = expected_state(place)
        found = re.search(
            rf"error: the loss is nan at step {step - 1}, .*images \w/\d.png, .*good state is (\S+)", said
        )
        if code != 1 or "Traceback" in said or found is None or found[1] != str(state):
            failures.append(f"step {step}: exit code {code}, see {log}")
        elif any(not tensor.isfinite().all() for tensor in load_file(state / "tensors.safetensors").values()):
            failures.append(f"step {step}: {state} is spoilt too")
    code = run(configured(folder / "rate", "optim.lr=1e30", "trainer.gradient_clip_val=null"), folder / "rate.log")
    if code != 1 or "lower optim.lr" not in (folder / "rate.log").read_text():
        failures.append(f"learning rate of 1e30: exit code {code}")
    return Outcome(count, f"{count} stopped at the very step, {len(failures)} wrong", failures)


ROW = Row(
    13,
    "loss or gradient not a number",
    "stops at that step with step, images and last good state",
    len(STEPS),
    1,
    not_a_number,
)
