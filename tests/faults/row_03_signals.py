"""A run that is asked to end, in any of its phases, keeps what it has, says that it is not finished, and goes on."""

import signal
from itertools import product
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, OwnGroup, Send
from faults.victims import configured, differing_bits, expected_line, expected_state, run, unbroken

FROZEN = ("method=linear_probe", "loading.augmentation=none", "loading.eval_batch_size=4")
STEP = "kravl.training.learner:Learner.training_step"
# phase: (what is called there, at which call, settings)
PHASES = {
    "training": (STEP, 5, ()),
    "training, signal to all processes": (STEP, 5, ("loading.num_workers=2",)),
    "saving": ("kravl.training.checkpoint:_write", 4, ()),
    "checking images": ("kravl.data.loading.cache:Cache.check", 3, ()),
    "encoding text": ("kravl.backbones.text.tower:CausalTextTower.encode_tree", 1, FROZEN),
    "computing features": ("kravl.evaluation.predict:FeaturePass.test_step", 2, FROZEN),
    "evaluating": ("kravl.evaluation.predict:PredictionPass.test_step", 2, ("loading.eval_batch_size=4",)),
}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
RESUMABLE, MOST_BATCHES = 75, 2


def asked_to_end(count: int, folder: Path) -> Outcome:
    """``count`` signals over the phases in turn; after each the same command again, and one Ctrl-C pressed twice."""
    cases = [(p, s) for s, p in product(SIGNALS, PHASES)]
    failures = []
    for i in range(count):
        phase, number = cases[i % len(cases)]
        problem = _ask(folder / str(i), phase, number)
        failures += [f"{phase}, {number.name}: {problem}"] if problem else []
    twice = AtCall(STEP, 5, Send((signal.SIGINT, signal.SIGINT)))
    if (code := run(configured(folder / "twice"), folder / "twice.log", twice)) != -signal.SIGINT:
        failures.append(f"Ctrl-C twice: exit code {code}")
    return Outcome(count, f"{count} signals, {count - len(failures)} saved, ended with 75 and went on", failures)


def _ask(place: Path, phase: str, number: signal.Signals) -> str | None:
    """What went wrong, if anything."""
    call, at, settings = PHASES[phase]
    counted = place.with_suffix(".calls")
    hook = OwnGroup(AtCall(call, at, Send((number,), group="all processes" in phase), counted))
    log = place.with_suffix(".log")
    if (code := run(configured(place, *settings), log, hook)) != RESUMABLE:
        return f"exit code {code}, see {log}"
    if call == STEP and (batches := len(counted.read_text().split())) > MOST_BATCHES:
        return f"{batches} batches before it ended"
    state, line = expected_state(place), expected_line(place)
    if call == STEP and (state is None or state.name != f"step={at}.ckpt"):
        return f"it kept {state}"
    if (code := run(configured(place, *settings), log)) != 0:
        return f"went on to exit code {code}"
    if line and line not in log.read_text():
        return f"did not say: {line}"
    return f"{differing} differ" if (differing := differing_bits(place, unbroken(*settings))) else None


ROW = Row(
    3,
    "SIGTERM, SIGUSR1, SIGHUP and Ctrl-C in seven phases; Ctrl-C twice",
    "50 saved, exit code 75, at most 1 step lost, at most 2 batches more",
    50,
    2,
    asked_to_end,
)
