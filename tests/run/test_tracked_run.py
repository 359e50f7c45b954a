"""A run's numbers do not depend on where it is followed; what is followed is the run, and an artifact loads as it."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from tracked import Tracked, read
from wandb_records import isolate, logged, stored_files

from kravl.api.model import FewShotModel
from kravl.run.train import train

THERE = ["csv", "wandb", *(["tensorboard"] if find_spec("tensorboard") else [])]
EVERY_STEP = ("++trainer.log_every_n_steps=1", "spectrum_every=1")


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    isolate(tmp_path, monkeypatch)
    yield
    wandb.teardown()


def run_folder(runs: Path) -> Path:
    [folder] = runs.glob("*/seed*")
    return folder


def test_a_tracked_run_has_the_record_of_an_untracked_one_and_the_same_folder(
    tiny_run: Callable[..., Any], tmp_path: Path
) -> None:
    plain = train(tiny_run("tracking=none", f"runs={tmp_path}/plain", *EVERY_STEP[:1]))

    tracked = train(tiny_run(f"tracking=[{','.join(THERE)}]", "track_sites=true", *EVERY_STEP[:1]))

    assert tracked == plain
    folders = [run_folder(tmp_path / name).relative_to(tmp_path / name) for name in ("plain", "runs")]
    assert folders[0] == folders[1]
    found = [read(kind, run_folder(tmp_path / "runs")) for kind in THERE]
    assert [each.settings["cell"] for each in found] == [tracked["cell"]] * len(THERE)
    accuracy = tracked["metrics"]["test/accuracy"]
    assert [each.last("test/accuracy") for each in found] == pytest.approx([accuracy] * len(THERE))
    assert all(any(name.startswith("sites/blocks.0.attn.qkv/") for name in each.metrics) for each in found)


def test_the_artifact_of_the_adapter_loads_as_the_run(tiny_run: Callable[..., Any], tmp_path: Path) -> None:
    record = train(tiny_run("tracking=wandb"))
    folder = run_folder(tmp_path / "runs")
    files = stored_files(folder)

    (copy := tmp_path / "downloaded").mkdir()
    for name in ("adapter.safetensors", "config.yaml", "model.json", "metrics.json", "README.md"):
        shutil.copy(files[name], copy / name)

    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    mine, theirs = (FewShotModel.load(path).predict_proba([image]) for path in (folder, copy))
    assert (mine == theirs).all()
    assert json.loads((copy / "model.json").read_text())["class_names"] == ["A", "B", "C", "D"]
    card = (copy / "README.md").read_text()
    assert f"| test | {100 * record['metrics']['test/accuracy']:.1f} % |" in card
    assert "Classes (4): A, B, C, D." in card
    assert not any(name.startswith("sites/") for name in logged(folder)["summary"])


def test_an_interrupted_run_goes_on_where_it_is_tracked_and_has_each_step_once(
    tiny_run: Callable[..., Any], tmp_path: Path, stop: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    kinds = [kind for kind in THERE if kind != "wandb"]  # whose sync appends one process's file to another's
    tracking = (f"tracking=[{','.join(kinds)}]", *EVERY_STEP)
    train(tiny_run("tracking=csv", f"runs={tmp_path}/whole", *EVERY_STEP))
    whole = read("csv", run_folder(tmp_path / "whole"))

    stop(tiny_run(*tracking, "checkpoint_every=0"))
    with caplog.at_level(logging.INFO, logger="kravl"):
        train(tiny_run(*tracking))

    assert any(message.startswith("resuming from ") for message in caplog.messages)
    for kind in kinds:
        found: Tracked = read(kind, run_folder(tmp_path / "runs"))
        for name in ("train/loss", "train/accuracy", "delta/norm"):
            assert found.steps(name) == whole.steps(name), (kind, name)
