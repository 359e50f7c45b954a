"""Runs side by side: one that fails, is killed or is another process's does not keep the others from their end."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_records import write_run

from kravl.config.compose import as_written
from kravl.runtime.errors import InputError
from kravl.runtime.lock import Lock
from kravl.study.pool import WorkerPool, gpus
from kravl.study.scheduler import FAILED, Outcome, run_all
from kravl.tracking.run_folder import RunFolder, folder_of


@pytest.fixture
def planned(tiny_run: Callable[..., Any], glyphs: Path) -> Callable[[str], tuple[Path, Callable[[], Any]]]:
    def make(*overrides: str) -> tuple[Path, Callable[[], Any]]:
        cfg = tiny_run(*overrides)
        return folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg)), cfg.copy

    return make


def test_each_run_comes_to_its_own_end(planned: Callable[..., Any]) -> None:
    names = ("killed", "mistaken", "owned", "good")
    runs = [planned(f"name={name}", *(["targets=[nothing]"] if name == "mistaken" else [])) for name in names]
    folder = {name: path for name, (path, _) in zip(names, runs, strict=True)}
    folder["owned"].mkdir(parents=True)
    lock = Lock(folder["owned"])
    outcomes_of: dict[str, list[Outcome]] = {name: [] for name in names}

    for outcome in run_all(runs, jobs=1):
        outcomes_of[names[outcome.position]].append(outcome)
        if outcome.status == "started" and names[outcome.position] == "killed":
            [process] = multiprocessing.active_children()
            process.kill()
        if outcome.status == "done" and names[outcome.position] == "good":
            assert not outcomes_of["owned"]
            lock.release()

    ends = {name: outcomes[-1] for name, outcomes in outcomes_of.items()}
    assert [ends[name].status for name in names] == ["killed", "failed", "done", "done"]
    assert "ended by signal 9 (SIGKILL), as the system does when memory runs out: fewer --jobs" in ends["killed"].reason
    assert not (folder["killed"] / FAILED).exists()  # the same command resumes it
    assert "'nothing' matches no" in ends["mistaken"].reason
    failure = json.loads((folder["mistaken"] / FAILED).read_text())
    assert failure["reason"] == ends["mistaken"].reason
    assert failure["reason"] in (folder["mistaken"] / failure["log"]).read_text()
    assert "metrics.json" in (folder["good"] / "log.txt").read_text()
    assert RunFolder(folder["owned"]).finished
    assert multiprocessing.active_children() == []


def test_finished_runs_need_no_process(tmp_path: Path) -> None:
    write_run(tmp_path / "run")

    assert list(run_all([(tmp_path / "run", dict)], jobs=None)) == [Outcome(0, "done")]
    assert multiprocessing.active_children() == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"the run folder .*/file/a cannot be written: .*; pass runs="):
        list(run_all([(tmp_path / "file/a", dict)], jobs=1))


def test_runs_share_the_gpus_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert gpus() == ["0", "3"]
    assert WorkerPool(None).size == 2

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == []
    assert WorkerPool(3).size == 3
