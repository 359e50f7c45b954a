"""Cells of a study in one process, each computing everything itself and sharing what they have in common.

python benchmarks/grid.py --methods lora kra --datasets openmoji     prints a table, then JSON in one line
python benchmarks/grid.py --quick     checks itself on one method and two steps; its figures mean nothing

Processor seconds of a worker of the study, one thread, from /proc (Linux). How they divide among a run's phases is by
the clock, from its cost.json.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import publish, record

from kravl.runtime.shared import share_of_memory
from kravl.study.grid import StudyRun, plan_runs
from kravl.study.pool import Worker
from kravl.study.schema import read_study

STUDY = Path(__file__).parents[1] / "experiments/studies/tiny.yaml"
PHASES = ("assemble", "images", "features", "train", "evaluate")
QUICK = ("optim.steps=2", "optim.warmup_steps=1", "evaluation=in_domain", "trainer.precision=32-true", "alphas=2")


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(runs: Sequence[StudyRun], arm: str, shared_bytes: int) -> list[dict[str, Any]]:
    """A row for each of the ``runs``, one after the other in a new process."""
    worker = Worker(1, None, shared_bytes)
    assert worker.process.pid is not None
    rows = []
    for run in runs:
        run.folder.mkdir(parents=True)
        begin = processor_seconds(worker.process.pid)
        worker.submit(run.folder, run.config())
        result = worker.result()
        assert result.status == "done", result
        taken = processor_seconds(worker.process.pid) - begin
        cost = json.loads((run.folder / "cost.json").read_text())
        clock = {phase: cost["phases"].get(phase, {}).get("seconds", 0.0) for phase in PHASES}
        shares = {f"{phase} %": round(100 * seconds / sum(clock.values()), 1) for phase, seconds in clock.items()}
        cell = f"{run.cell.method} {run.cell.dataset} {run.shots} shots seed {run.seed}"
        rows.append({"arm": arm, "run": cell, "processor s": round(taken, 1), **shares})
    worker.close()
    worker.process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["kra", "lora", "full"])
    parser.add_argument("--datasets", nargs="+", default=["openmoji", "digits"])
    parser.add_argument("--shots", nargs="+", type=int, default=[16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run")
    parser.add_argument("--rounds", type=int, default=2, help="each has both arms")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="two steps, one round, one method")
    options = parser.parse_args()
    if options.quick:
        options.methods, options.datasets, options.shots, options.rounds = ["lora"], ["digits"], [1], 1
        options.set = [*options.set, *QUICK]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for arm, shared_bytes in (("each by itself", 0), ("shared", share_of_memory(1))):
                changes = [*options.set, f"runs={folder}/{turn} {arm}"]
                planned = plan_runs(read_study(STUDY, changes), changes)
                chosen = [run for run in planned if _is_chosen(run, options)]
                rows += [{"round": turn, **row} for row in train(chosen, arm, shared_bytes)]
    settings = {"study": STUDY.name, "rounds": options.rounds, "set": options.set}
    publish(record("Cells of a study in one process", rows, settings=settings), options.json)


def _is_chosen(run: StudyRun, options: argparse.Namespace) -> bool:
    wanted = run.cell.method in options.methods and run.cell.dataset in options.datasets
    return wanted and run.shots in options.shots and run.seed in options.seeds


if __name__ == "__main__":
    main()
