"""The writer of a feature file is killed at any moment: what is read afterwards is whole, or computed again."""

import multiprocessing
import os
import random
import signal
import time
import warnings
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from faults.campaign import Outcome, Row

from kravl.data.loading.feature_cache import FeatureStore

FORK = multiprocessing.get_context("fork")
KEYS = ({"round": 0}, {"round": 1})
COUNT, WIDTH, LONGEST = (
    4000,
    64,
    0.06,
)  # features, numbers of each; seconds before the kill, in which several files are written


def features() -> torch.Tensor:
    return torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0))


def write_for_ever(root: str, started: Event) -> None:
    store, kept = FeatureStore(root, 1.0), features()
    assert store.folder is not None
    started.set()
    while True:
        for key in KEYS:
            store.get(key, (COUNT, WIDTH), lambda: kept)
        for file in store.folder.glob("*.safetensors"):
            file.unlink()


def killed(count: int, folder: Path) -> Outcome:
    """``count`` kills; then both files are read, and what they hold is held against what was computed."""
    rng, failures, expected, computed = random.Random(0), [], features(), [0]

    def again() -> torch.Tensor:
        computed[0] += 1
        return expected

    for i in range(count):
        started = FORK.Event()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork
            process = FORK.Process(target=write_for_ever, args=(str(folder), started))
            process.start()
        assert started.wait(timeout=300) and process.pid is not None
        time.sleep(rng.uniform(0, LONGEST))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = FeatureStore(str(folder), 1.0)
        assert store.folder is not None
        if any(not torch.equal(store.get(key, (COUNT, WIDTH), again), expected) for key in KEYS):
            failures.append(f"{i}: a half file was used")
        if left := [file.name for file in store.folder.glob(".*")]:
            failures.append(f"{i}: left {left}")
    return Outcome(
        count, f"{count} kills, {computed[0]} files computed again, {len(failures)} half files used", failures
    )


GATE = "0 half files used, 0 left over"
ROW = Row(29, "the writer of a feature file is killed", GATE, 30, 6, killed)
