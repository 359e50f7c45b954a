"""Out of memory, by the allocator's own word: fewer images at a time, the same batch, gradient and result."""

import json
from itertools import product
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import LimitMemory
from faults.victims import configured, run, unbroken
from safetensors.torch import load_file

CASES = list(product((3, 2, 1), (1, 8)))  # images that there is room for, and from which batch on
BATCH = 8
CLOSE = 1e-5  # of the loss, in single precision


def short_of_memory(count: int, folder: Path) -> Outcome:
    """``count`` cases that end like the run with enough memory, and one with no room for a single image."""
    failures, largest = [], 0.0
    for images, call in CASES[:count]:
        place, log = folder / f"{images}-{call}", folder / f"{images}-{call}.log"
        code = run(configured(place), log, LimitMemory(images, call))
        size = 2 if images == 3 else images
        message = f"splitting loading.batch_size={BATCH} into {BATCH // size} micro-batches of {size}"
        if code != 0 or message not in log.read_text():
            failures.append(f"room for {images} from batch {call}: exit code {code}, see {log}")
            continue
        largest = max(largest, _difference(place, unbroken()))
    if largest >= CLOSE:
        failures.append(f"the loss differs by {largest}")
    code = run(configured(folder / "none"), folder / "none.log", LimitMemory(0, 1))
    said = (folder / "none.log").read_text()
    if code != 1 or "out of memory with one image at a time" not in said or "Traceback" in said:
        failures.append(f"no room at all: exit code {code}, see {folder / 'none.log'}")
    count = min(count, len(CASES))
    return Outcome(count, f"{count} limits, loss of the test set differs by {largest:.1e} at most", failures)


def _difference(ours: Path, theirs: Path) -> float:
    """Of the test loss; the adapters are compared too, as rounding goes through twelve steps of AdamW."""
    (a,), (b,) = (folder.glob("*/seed*") for folder in (ours, theirs))
    weights = load_file(b / "adapter.safetensors")
    for name, tensor in load_file(a / "adapter.safetensors").items():
        assert tensor.allclose(weights[name], rtol=1e-2, atol=1e-4), name
    losses = [json.loads((place / "metrics.json").read_text())["metrics"]["test/loss"] for place in (a, b)]
    return abs(losses[0] - losses[1])


ROW = Row(
    12,
    "out of memory in training and evaluation, at the start and in the middle",
    "continues in micro-batches, loss differs by less than 1e-5; with none left, one line",
    len(CASES),
    1,
    short_of_memory,
)
