"""The command: plan, stop, go on, failures listed, and the same numbers as a run by itself."""

import io
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_run import TINY, VIT

from kravl.cli.study import main
from kravl.run.train import train
from kravl.runtime.files import shipped
from kravl.study.grid import Cell, StudyRun, plan_runs
from kravl.study.progress import show_plan
from kravl.study.scheduler import run_all
from kravl.study.schema import read_study

LONG = ["optim.epochs=12"]  # long enough to be stopped in


@pytest.fixture
def arguments(glyphs: Path, tmp_path: Path) -> list[str]:
    """Of a study with a run that finishes, one that diverges, and one that is refused once its data are asked for."""
    backbone, *size = VIT
    study = {
        "name": "letters",
        "question": "does it go on?",
        "backbones": {backbone.removeprefix("backbone="): size},
        "datasets": ["folder"],
        "methods": {
            "kra": LONG,
            "wild": ["method=kra", "optim.lr=1e30", "trainer.gradient_clip_val=null"],
            "lost": ["method=kra", "data.class_names=nowhere.csv"],
        },
        "shots": [6],
        "seeds": [1],
        "settings": [s.removeprefix("++") for s in TINY if not s.startswith(("data=", "shots="))],
    }
    (tmp_path / "letters.yaml").write_text(json.dumps(study))
    return [str(tmp_path / "letters.yaml"), "--jobs", "1", "--set", f"data_root={glyphs}", f"runs={tmp_path}/runs"]


def descendants(process: int) -> Iterator[int]:
    """Processes that ``process`` has started, and those that they have."""
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            yield child
            yield from descendants(child)


@contextmanager
def terminal_closed_after(step: int, runs: Path) -> Iterator[None]:
    """From that ``step`` on, send what a terminal that is closed sends to each process it has started.

    Under nohup, where that is to be ignored, what asks a run to end.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ended = threading.Event()

    def reached() -> bool:  # a checkpoint is replaced by the next, and may not be there when it is looked for
        saved = runs.glob("*_kra_*/*/checkpoints/step=*.ckpt")
        return any(int(file.stem.removeprefix("step=")) >= step for file in saved)

    def wait() -> None:
        while not reached():
            if ended.wait(0.005):
                return
        for process in (*descendants(os.getpid()), os.getpid()):
            os.kill(process, signal.SIGTERM if ignored else signal.SIGHUP)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_study_is_planned_stopped_gone_on_with_and_says_what_failed(
    arguments: list[str],
    tiny_run: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main([*arguments, "--plan"]) == 0
    planned = capsys.readouterr().err
    assert "letters: does it go on?" in planned
    assert "3 runs: 0 done, 3 missing" in planned
    assert "3 to run, 1 at once: no run is finished to judge the time by" in planned
    assert not (tmp_path / "runs").exists()

    with terminal_closed_after(5, tmp_path / "runs"):
        assert main(arguments) == 75
    assert "stopped on request; run the same command again to resume" in capsys.readouterr().err

    assert main([arguments[0], "--pictures", *arguments[1:]]) == 2  # nowhere to draw them
    assert main([arguments[0], "--report", "--pictures", *arguments[1:]]) == 1
    printed, second = capsys.readouterr()
    assert printed.splitlines().count(f"{tmp_path}/runs/report/report.md") == 2  # after the first run, and at the end
    assert caplog.messages.count("2 of the 3 runs of letters are not finished") == 2
    assert "3 runs: 0 done, 1 interrupted, 2 missing" in second
    [failed] = {line for line in second.splitlines() if line.startswith("failed: wild on folder") and "log.txt" in line}
    assert re.search("seed 1: the (loss|norm of the gradient) is (nan|inf) at step", failed)
    [refused] = [
        line for line in second.splitlines() if line.startswith("failed: lost on folder") and "log.txt" in line
    ]
    assert "nowhere.csv" in refused
    [log] = (tmp_path / "runs").glob("*_lost_*/*/log.txt")
    assert "nowhere.csv" in log.read_text()
    [metrics] = (tmp_path / "runs").glob("*_kra_*/*/metrics.json")
    assert "resuming from" in metrics.with_name("log.txt").read_text()
    unbroken = train(tiny_run(f"runs={tmp_path}/unbroken", *LONG, "name=vit_tiny_random_kra_6shot_folder"))
    assert json.loads(metrics.read_text())["metrics"] == unbroken["metrics"]

    assert main(arguments) == 1
    third = capsys.readouterr().err
    assert "3 runs: 1 done, 2 failed, 0 missing" in third
    assert "nothing to run" in third
    assert main([*arguments, "--plan", "--retry-failed"]) == 0
    assert "2 to run, 1 at once: about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content"),
    [("metrics.json", "{"), ("metrics.json", "{}"), ("inputs.json", '{"paths": {"data_root": ["a\\u0000b", "c"]}}')],
)
def test_a_damaged_record_stops_no_other_run(
    arguments: list[str], file: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run, *_] = plan_runs(read_study(Path(arguments[0]), arguments[4:]), arguments[4:])
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.json").write_text("{}")
    (run.folder / file).write_text(content)

    assert main([*arguments, "--plan"]) == 0

    said = capsys.readouterr().err
    assert "3 runs: 0 done, 1 failed, 2 missing" in said
    assert re.search(rf"failed: kra on folder .*{re.escape(file)} is not ", said)
    [outcome] = run_all([(run.folder, run.config)], 1)
    assert (outcome.status, file in outcome.reason) == ("failed", True)


def test_the_commands_are_printed_and_nothing_else(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--print-commands"]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split(" -m ")[0] for line in printed.out.splitlines()] == ["python train.py"] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--set", "shotz=2"], "shotz"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--jobs", "9" * 20], "at most 1024"),
        (["--set", "data_root=/nowhere", "adapter.scael=3"], "did you mean 'scale'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arguments[0], *given]) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("width", "tables"), [(80, 3), (200, 1)])
def test_a_plan_of_many_methods_has_a_row_for_each_whatever_the_width(width: int, tables: int) -> None:
    study = read_study(shipped("experiments/studies") / "field_few_shot_11.yaml")
    cells = [Cell("clip_vitb16", data, method) for data in study.datasets for method in study.methods]
    runs = [StudyRun(cell, 1, 1, Path(), Path(), None) for cell in cells]
    console = Console(file=io.StringIO(), width=width)

    show_plan(console, study, runs, ["done"] * len(runs))

    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    for method in study.methods:
        rows = [line.split() for line in lines if line.split()[:1] == [method]]
        assert len(rows) == tables
        assert [cell for row in rows for cell in row[1:]] == ["1/1"] * len(study.datasets)
    heads = [line.split()[3:] for line in lines if line.startswith(" done / all")]
    assert [name for head in heads for name in head] == list(study.datasets)
