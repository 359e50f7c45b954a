"""Runs of a W&B project make the report that their folders make; what cannot be read is one line.

W&B itself is not asked: its own client asks a server on this machine, which has what runs logged offline.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from run_records import accuracies, record, write_run
from wandb_records import FAKE_KEY, IDENTITY, isolate, logged
from wandb_server import WandbServer, serve

from kravl.cli.report import main
from kravl.report import wandb_runs
from kravl.report.runs import read_runs
from kravl.report.wandb_runs import NO_FILES, read_wandb
from kravl.tracking.loggers import make_trackers
from kravl.tracking.settings import CELL

PROJECT = "team/adapters"
DETAILS = {"reliability": {"adapted": {"test": [[1, 0.5, 1.0]]}}, "class_names": ["a"], "images": [1],
           "hits": {"adapted": [1]}}  # fmt: skip
COST = {"train_seconds": 3.5, "evaluation_seconds": 1.5, "peak_memory_bytes": 1024, "device": "cpu"}
ZERO_SHOT = accuracies(0.25, 0.125)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds W&B's offline folder of a finished run, without metrics.json."""
    folder = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        isolate(folder, patch)
        result = record(zero_shot=ZERO_SHOT)
        trackers = make_trackers("wandb", folder, IDENTITY, {**result["config"], CELL: "kra-01234567"})
        trackers.result(result, COST, DETAILS)
        trackers.close()
        wandb.teardown()
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    monkeypatch.chdir(tmp_path)
    with serve(tmp_path, monkeypatch) as made:
        yield made


def changed(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What a run ``logged``, its record with ``changes``."""
    other = copy.deepcopy(run)
    other["summary"]["record"] |= changes
    return other


def add_seeds(server: WandbServer, offline: Path) -> None:
    run = logged(offline)
    for seed, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
        for method in ("kra", "lora"):
            server.add(PROJECT, f"{method}{seed}", changed(run, method=method, seed=seed, metrics=accuracies(accuracy)))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that `kravl report` prints before it exits with 2."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_run_is_read_back_as_its_metrics_and_cost_page_by_page(server: WandbServer, offline: Path) -> None:
    for seed in range(1, 6):
        server.add(PROJECT, f"run{seed}", changed(logged(offline), seed=seed))

    runs, problems = read_wandb(f"wandb:{PROJECT}")

    assert problems == [NO_FILES]
    assert [run.record for run in runs] == [record(zero_shot=ZERO_SHOT, seed=seed) for seed in range(1, 6)]
    assert [run.cost for run in runs] == [COST] * 5
    pages = [asked["variables"]["cursor"] for asked in server.asked if "query Runs(" in asked["query"]]
    assert pages == [None, "2", "4"]  # nothing is asked run by run


def test_the_report_is_that_of_the_folders(server: WandbServer, offline: Path, tmp_path: Path) -> None:
    add_seeds(server, offline)
    for seed, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
        for method in ("kra", "lora"):
            path = write_run(tmp_path / f"runs/{method}{seed}", method=method, seed=seed, metrics=accuracies(accuracy),
                             zero_shot=ZERO_SHOT)  # fmt: skip
            path.with_name("cost.json").write_text(json.dumps(COST))
    options = ["--no-figures", "--baseline", "lora", "--where", "seed=1,2"]

    assert main([f"wandb:{PROJECT}", *options]) == 0
    assert main([str(tmp_path / "runs"), *options]) == 0

    remote = json.loads((tmp_path / "report/report.json").read_text())
    local = json.loads((tmp_path / "runs/report/report.json").read_text())
    assert remote.pop("notes") == [NO_FILES]
    assert local.pop("notes") == []
    assert remote == local
    assert remote["groups"]
    assert "recall by class" in (tmp_path / "report/index.html").read_text()


def test_a_run_without_a_proper_result_is_a_line(server: WandbServer, offline: Path) -> None:
    run = logged(offline)
    server.add(PROJECT, "going", {"summary": {"train/loss": 0.5}, "config": run["config"]}, state="running")
    server.add(PROJECT, "later", changed(run, schema=7))
    server.add(PROJECT, "none", changed(run, metrics={"test/accuracy": "NaN"}))
    server.add(PROJECT, "whole", run)

    runs, problems = read_wandb(f"wandb:{PROJECT}")

    assert len(runs) == 1
    assert problems == [
        f"skipped wandb:{PROJECT}/going: no result (running; unfinished, or logged by an earlier kravl)",
        f"skipped wandb:{PROJECT}/later: schema 7, not 1",
        f"skipped wandb:{PROJECT}/none: missing or invalid: metrics",
        NO_FILES,
    ]


def test_without_an_entity_it_is_that_of_the_environment_or_of_the_key(
    server: WandbServer, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add(PROJECT, "own", logged(offline))
    server.add("lab/adapters", "other", changed(logged(offline), seed=2))

    assert [run.record["seed"] for run in read_wandb("wandb:adapters")[0]] == [1]
    monkeypatch.setenv("WANDB_ENTITY", "lab")
    wandb.teardown()
    assert [run.record["seed"] for run in read_wandb("wandb:adapters")[0]] == [2]
    monkeypatch.delenv("WANDB_ENTITY")
    wandb.teardown()
    server.entity = None
    assert refusal(capsys, "wandb:adapters") == (
        "error: wandb:adapters cannot be read: W&B names no default entity for this key; write wandb:ENTITY/adapters"
    )


def test_a_project_that_does_not_exist_is_one_line(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.projects["team/empty"] = []

    assert refusal(capsys, "wandb:team/adaptors") == (
        "error: wandb:team/adaptors cannot be read: Could not find project adaptors"
    )
    assert refusal(capsys, "wandb:team/empty") == "error: no finished run below wandb:team/empty: no run in it"
    for address in ("wandb:", "wandb:team/", "wandb:https://wandb.ai/team/adapters"):
        assert refusal(capsys, address).startswith(f"error: {address} is not a W&B project: wandb:ENTITY/PROJECT")
    assert not (tmp_path / "report").exists()


def test_a_server_that_breaks_while_it_is_read_is_one_line(
    server: WandbServer, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_runs, "TIMEOUT", 1)
    add_seeds(server, offline)
    server.breaks = True

    assert refusal(capsys, f"wandb:{PROJECT}").startswith(f"error: wandb:{PROJECT} cannot be read: ")


def test_without_a_key_or_an_answer_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    isolate(tmp_path, monkeypatch)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    for reason in ("no API key for http://127.0.0.1:9", "http://127.0.0.1:9 does not answer"):
        assert refusal(capsys, f"wandb:{PROJECT}") == (
            f"error: wandb:{PROJECT} cannot be read: {reason}; "
            "this needs WANDB_MODE=online, a key (WANDB_API_KEY or `wandb login`) and a network"
        )
        monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)


def test_an_offline_folder_without_metrics_is_reported_with_how_to_read_it(
    offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [folder] = offline.glob("wandb/offline-run-*")
    write_run(tmp_path / "run")
    shutil.copytree(offline / "wandb", tmp_path / "run/wandb", symlinks=True)

    line = refusal(capsys, str(offline))

    assert f"1 of W&B's offline folders, which have no metrics.json beside them, such as {folder}: " in line
    assert "after `wandb sync` of that folder `kravl report wandb:ENTITY/PROJECT` reads it" in line
    assert read_runs(tmp_path)[1] == []
