"""Row 32: a report on runs that train, end and are deleted meanwhile: it has those that are whole, and never stops."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from faults.campaign import Outcome, Row
from run_records import write_run

from kravl.report.runs import read_runs

WHOLE = 3
HIDDEN = ".step=1.ckpt.77"


def _trains(run: Path, step: int) -> None:
    """A state appears under its temporary name and replaces the one before, as `kravl.training.checkpoint` writes."""
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / HIDDEN).mkdir()
    (checkpoints / HIDDEN / "state.json").write_text("{}")
    (checkpoints / HIDDEN).rename(checkpoints / f"step={step}.ckpt")
    shutil.rmtree(checkpoints / f"step={step - 1}.ckpt", ignore_errors=True)


def _ends_and_is_deleted(run: Path, step: int) -> None:
    (run / "evaluations").mkdir(parents=True)
    write_run(run / "again", 1.0, seed=step % 100)
    (run / "evaluations/other.json").write_text("{")
    shutil.rmtree(run)


def run(count: int, folder: Path) -> Outcome:
    """``count`` reads while two runs live."""
    for seed in range(WHOLE):
        write_run(folder / f"runs/whole/seed{seed}", 1.0, seed=seed)
    over = threading.Event()
    lives = [
        threading.Thread(target=_live, args=(each, folder / f"runs/{each.__name__}/seed9", over))
        for each in (_trains, _ends_and_is_deleted)
    ]
    for thread in lives:
        thread.start()
    failures = []
    try:
        for i in range(count):
            try:
                whole = {run.record["seed"] for run in read_runs(folder / "runs")[0] if "whole" in run.folder.parts}
                failures += [f"read {i}: {WHOLE - len(whole)} whole runs are missing"] * (len(whole) != WHOLE)
            except (OSError, ValueError, LookupError, TypeError) as error:
                failures.append(f"read {i}: {type(error).__name__}: {error}")
    finally:
        over.set()
        for thread in lives:
            thread.join()
    return Outcome(count, f"{count} reads, {len(failures)} stopped or incomplete", failures)


def _live(step: Callable[[Path, int], None], place: Path, over: threading.Event) -> None:
    number = 0
    while not over.is_set():
        number += 1
        step(place, number)


ROW = Row(
    32, "a report while runs train and are deleted", "0 of 2000 reads stop, every whole run in each", 2000, 150, run
)


def test_a_report_is_not_stopped_by_runs_that_come_and_go(tmp_path: Path) -> None:
    assert list(run(ROW.quick_count, tmp_path).failures) == []
