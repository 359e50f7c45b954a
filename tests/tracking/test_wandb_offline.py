"""W&B's folders are read as W&B wrote them; what is cut short or damaged is said and what comes before it is used."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from run_records import accuracies, record
from wandb_records import IDENTITY, isolate

from kravl.report.runs import read_runs
from kravl.tracking.loggers import close_logger, log_result, make_logger
from kravl.tracking.wandb_offline import BLOCK, read_offline

DETAILS = {"reliability": {"adapted": {"test": [[1, 0.5, 1.0]]}}, "class_names": ["a"], "images": [1],
           "hits": {"adapted": [1]}}  # fmt: skip
COST = {"train_seconds": 3.5, "peak_memory_bytes": 1024, "device": "cpu", "phases": {"train": {"seconds": 3.5}}}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder that W&B wrote, with a record larger than one of its blocks, and no metrics.json."""
    folder = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        isolate(folder, patch)
        result = whole()
        logger = make_logger("wandb", folder, IDENTITY, result["config"])
        log_result(logger, result, COST, DETAILS)
        close_logger(logger)
        wandb.teardown()
        yield folder


def whole(**changes: Any) -> dict[str, Any]:
    return record(templates=["a photo of a {}." * 9] * 400, zero_shot=accuracies(0.25, 0.125), **changes)


def file(folder: Path) -> Path:
    [found] = folder.rglob("run-*.wandb")
    return found


@pytest.fixture
def copy(offline: Path, tmp_path: Path) -> Path:
    return shutil.copytree(offline / "wandb", tmp_path / "copy/wandb", symlinks=True).parent


def test_a_run_is_read_back_as_its_metrics_and_cost(offline: Path) -> None:
    found, problems = read_offline(offline)

    assert problems == []
    assert [each["record"] for each in found] == [whole()]
    assert [each["cost"] for each in found] == [COST]
    assert file(offline).stat().st_size > BLOCK


def test_a_report_takes_a_run_of_which_only_that_folder_is_left(copy: Path) -> None:
    runs, problems = read_runs(copy)

    assert problems == []
    assert [(run.record["method"], run.values["train_seconds"]) for run in runs] == [("kra", 3.5)]


def test_metrics_json_wins_and_a_copy_elsewhere_is_not_counted_twice(copy: Path, offline: Path) -> None:
    (copy / "metrics.json").write_text(json.dumps(whole()))
    shutil.copytree(offline / "wandb", copy.parent / "collected/wandb", symlinks=True)

    runs, problems = read_runs(copy.parent)

    assert [run.folder for run in runs] == [copy]
    assert problems == []


def test_a_resumed_run_counts_once(copy: Path) -> None:
    [folder] = copy.glob("wandb/offline-run-*")
    shutil.copytree(folder, folder.with_name(f"{folder.name}x"))
    (folder / file(folder).name).write_bytes(file(folder).read_bytes()[:7])  # what was written before it was stopped

    found, problems = read_offline(copy)

    assert len(found) == 1
    assert problems == []


@pytest.mark.parametrize("left", [0, 3, 5, 7, 10, 500, 40_000])
def test_a_file_cut_short_anywhere_is_a_line(copy: Path, left: int) -> None:
    path = file(copy)
    path.write_bytes(path.read_bytes()[:left])

    runs, problems = read_runs(copy)

    assert runs == []
    assert problems[-1].startswith(f"skipped {path}: it holds no result")
    assert all(str(path) in line for line in problems)


def test_a_file_that_lost_its_end_still_has_its_record(copy: Path) -> None:
    path = file(copy)
    path.write_bytes(path.read_bytes()[:-20])

    runs, problems = read_runs(copy)

    assert [run.record["method"] for run in runs] == ["kra"]
    assert len(problems) == 1
    assert "cut short" in problems[0]


def test_a_changed_byte_is_noticed(copy: Path) -> None:
    path = file(copy)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)

    assert "damaged at byte 7" in read_offline(copy)[1][0]


def test_another_file_is_not_one_of_wandb(tmp_path: Path) -> None:
    (tmp_path / "run-1.wandb").write_text("hello")

    assert "not a file of W&B" in read_offline(tmp_path)[1][0]


def test_a_run_of_another_schema_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)
    logger = make_logger("wandb", tmp_path, IDENTITY, {})
    log_result(logger, record(schema=7), {}, DETAILS)
    close_logger(logger)
    wandb.teardown()

    runs, problems = read_runs(tmp_path)

    assert runs == []
    assert problems[0].endswith("schema 7, not 1")
