"""`kravl ls`: what there is to choose from is what composes, and every run below a folder has its state."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kravl.cli.listed_runs import list_runs
from kravl.cli.ls import WHAT, main
from kravl.cli.named_set import data_sets
from kravl.config.compose import check_command_line, experiments, register_configs
from kravl.config.schema import CONFIGS
from kravl.runtime.lock import Lock
from kravl.study.scheduler import FAILED

FINISHED = Path(__file__).parents[1] / "fixtures/written_by_2e3b7d2/finished/quickstart_kra/seed1-c0d36105"


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main([*arguments, "--json"]) == 0
    listed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return listed


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [next(iter(row.values())) for row in listed]


@pytest.mark.parametrize("kind", [kind for kind in WHAT if kind != "runs"])
def test_every_name_is_listed_once_and_says_what_it_is(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    listed = rows(capsys, kind)

    distinct = {tuple(row.values())[:2] for row in listed}  # nine names are models of both libraries
    assert len(distinct) == len(listed) > 10
    assert all(list(row.values())[-1] for row in listed)


def test_what_is_listed_is_what_a_command_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert {*names(rows(capsys, "datasets"))} >= {*data_sets()}
    assert {*names(rows(capsys, "experiments", "*"))} == {*experiments()}
    files = {path.stem for path in (CONFIGS / "method").glob("*.yaml")}
    assert {*names(rows(capsys, "methods"))} == files - {"custom"}
    register_configs(["clip_vitb16_kra_4shot"])
    check_command_line([f"experiment={names(rows(capsys, 'experiments', 'clip_vitb16_kra_4shot'))[0]}"], "train")


def test_the_adapter_of_a_method_is_the_one_that_it_composes_to(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = {row["method"]: row["adapter"] for row in rows(capsys, "methods")}
    assert (adapter["kra"], adapter["cliplora"], adapter["full"]) == ("kra", "lora", "full")
    assert {adapter[name] for name in ("bitfit", "layernorm", "linear_probe", "zeroshot")} == {"none"}


def test_a_set_on_disk_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "DTD/images").mkdir(parents=True)
    assert rows(capsys, "datasets", "dtd", "--data-root", str(tmp_path))[0]["on disk"] == str(tmp_path / "DTD")
    assert rows(capsys, "datasets", "dtd")[0]["on disk"] == "no"


def test_a_shift_lists_its_sets(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "shifts", "imagenet_ood_1000way")
    assert (row["sets"], row["names"]) == (4, "imagenet_v2, imagenet_sketch, imagenet_a, imagenet_r")
    (row,) = rows(capsys, "shifts", "cross_dataset")  # composed of files of configs/data
    assert row["sets"] == 10


def test_runs_have_their_state_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(FINISHED, runs / "a/seed1-0")
    record = json.loads((FINISHED / "metrics.json").read_text())
    for name in ("b", "c", "d", "e"):
        (runs / name / "seed1-0/checkpoints").mkdir(parents=True)
        (runs / name / "seed1-0/inputs.json").write_text("{}")
    (runs / "b/seed1-0/checkpoints/step=20.ckpt").mkdir()
    (runs / "b/seed1-0/checkpoints/step=100.ckpt").mkdir()
    (runs / "c/seed1-0" / FAILED).write_text(json.dumps({"reason": "no\x1b[31m room"}))
    (runs / "e/seed1-0/metrics.json").write_text(json.dumps({**record, "shots": "\ud800"}))
    lock = Lock(runs / "d/seed1-0")

    finished, stopped, failed, training, damaged = list_runs(runs)

    lock.release()
    assert (finished["state"], finished["method"]) == ("finished", "kravl_tiny kra")
    assert finished["test"] == f"{100 * record['metrics']['test/accuracy']:.1f}"
    assert finished["OOD mean"] == f"{100 * record['metrics']['ood_mean']:.1f}"
    assert finished["parameters"] == f"{record['trainable_parameters']:,}"
    assert (stopped["state"], training["state"]) == ("stopped at step 100", "training")
    assert failed["state"] == "failed: no\\x1b[31m room"
    assert damaged["state"].startswith("damaged: ")
    first, second, *_ = rows(capsys, "runs", "--runs", str(runs))
    accuracy = round(100 * record["metrics"]["test/accuracy"], 1)
    assert (first["test"], first["parameters"], first["shots"]) == (accuracy, record["trainable_parameters"], 2)
    assert (second["test"], second["state"]) == (None, "stopped at step 100")
    assert main(["runs", "*/d/*", "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "stopped" in shown
    assert shown.endswith("1 run\n")


MISTAKES = {
    "no such name": (["methods", "lroa"], "; the nearest are lora, "),
    "no such data set": (["datasets", "caltech10l"], "the nearest are caltech101, "),
    "nothing": ([], "nothing is named to list; give one of models, methods, datasets, shifts, experiments, runs, such"),
    "no folder": (["runs", "--runs", "/nowhere/at/all"], "error: no folder /nowhere/at/all (/nowhere does not exist)"),
    "runs of a list": (["models", "--runs", "/x"], "error: --runs is for kravl ls runs, not for models"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
