"""Runs side by side end with the process that started them: their states are saved, and nothing trains on."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from faults.campaign import Outcome, Row
from faults.victims import configured, launch

from kravl.study.scheduler import run_all
from kravl.tracking.run_folder import folder_of

LONG = ("optim.epochs=1000", "backbone.build.name=kravl-tiny")  # a model that the runs of a study know
PATIENCE = 180.0  # seconds that a run has to begin
AT_MOST = 12.0  # seconds until nothing is left


def orphaned(count: int, folder: Path) -> Outcome:
    """``count`` times two runs side by side, whose parent is killed while they train."""
    failures = []
    for i in range(count):
        place = folder / str(i)
        parent = launch(_parent, place)
        owners: dict[int, Path] = {}
        deadline = time.monotonic() + PATIENCE
        while len(owners) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            owners = {_pid(state.parents[1]): state.parents[1] for state in place.glob("*/*/checkpoints/step=?.ckpt")}
        parent.kill()
        parent.join()
        begin = time.monotonic()
        while any(map(_lives, owners)) and time.monotonic() - begin < AT_MOST:
            time.sleep(0.05)
        left = [pid for pid in owners if _lives(pid)]
        unsaved = [str(path) for path in owners.values() if not any((path / "checkpoints").glob("step=*.ckpt"))]
        if len(owners) < 2 or left or unsaved:
            failures.append(f"{i}: {len(owners)} began, {len(left)} train on, without a state: {unsaved}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    return Outcome(count, f"{count} parents killed, {len(failures)} with runs that go on", failures)


def _parent(place: Path) -> None:
    cfgs: list[Any] = [configured(place, *LONG, f"name={name}") for name in ("a", "b")]
    runs = [(folder_of(cfg.runs, cfg.name, cfg.seed, _settings(cfg)), cfg.copy) for cfg in cfgs]
    for _ in run_all(runs, jobs=2):
        pass


def _settings(cfg: Any) -> Any:
    from kravl.config.compose import as_written

    return as_written(cfg)


def _pid(run: Path) -> int:
    return int(json.loads((run / ".owner").read_text())["pid"])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


GATE = f"0 processes of 2 left after {AT_MOST:.0f} s, each run with a state"
ROW = Row(25, "the process that runs others side by side is killed", GATE, 5, 1, orphaned)
