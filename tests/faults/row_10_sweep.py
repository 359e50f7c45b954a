"""A sweep of which some jobs fail and whose machine dies: the next start runs what is missing and nothing else."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import letters
from faults.campaign import Outcome, Row
from faults.victims import launch
from hydra import compose, initialize_config_dir
from tiny_run import TINY, VIT

from kravl.config.compose import as_written
from kravl.config.schema import CONFIGS
from kravl.study.scheduler import run_all
from kravl.tracking.run_folder import RunFolder, folder_of

JOBS = 2  # at once
SMALL = ("targets=[blocks.0.attn.qkv]", "optim.steps=1", "cache_root=null")
Records = dict[Path, int]  # metrics.json of a finished run, and when it was written


def sweep(count: int, folder: Path) -> Outcome:
    """``count`` jobs, a sixth of which have no images at first; killed, started again, mended, started once more."""
    failing = count // 6
    letters.write(folder / "data/glyphs", "ABCD")
    first = launch(_all, folder, count, failing)
    while first.is_alive() and len(_finished(folder)) < count // 3:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)  # as the machine dies: what it has begun with it
    first.join()
    kept = _finished(folder)
    _start(folder, count, failing)
    before = _finished(folder)
    letters.write(folder / "later/glyphs", "ABCD")
    _start(folder, count, failing)
    after = _finished(folder)
    again = [str(path) for earlier in (kept, before) for path, at in earlier.items() if after.get(path) != at]
    failures = [f"{name} was computed again" for name in again]
    failures += [f"{len(before)} of {count - failing} were there before mending"] * (len(before) != count - failing)
    failures += [f"{len(after)} of {count} were there at the end"] * (len(after) != count)
    reached = f"{len(kept)} kept after the kill, {len(before)} beside {failing} failures, {len(after)} in the end, "
    return Outcome(count, f"{reached}{len(again)} recomputed", failures)


def _start(folder: Path, count: int, failing: int) -> None:
    process = launch(_all, folder, count, failing)
    process.join()


def _all(folder: Path, count: int, failing: int) -> None:
    os.setpgid(0, 0)
    planned = [_planned(folder, seed, seed > count - failing) for seed in range(1, count + 1)]
    for _ in run_all(planned, JOBS):
        pass


def _planned(folder: Path, seed: int, fails: bool) -> tuple[Path, Any]:
    data = folder / ("later" if fails else "data")
    where = (f"data_root={data}", f"runs={folder}/runs", f"seed={seed}", "split_seed=1")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [*TINY, *VIT, *SMALL, *where])
    return folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg)), cfg.copy


def _finished(folder: Path) -> Records:
    places = (folder / "runs").glob("*/seed*")
    return {p / "metrics.json": (p / "metrics.json").stat().st_mtime_ns for p in places if RunFolder(p).finished}


ROW = Row(
    10,
    "a sweep of 30 jobs: 5 fail, the machine dies",
    "25 kept, 0 recomputed; the 5 run when they are mended",
    30,
    6,
    sweep,
)
