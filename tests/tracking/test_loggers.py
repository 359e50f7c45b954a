"""What was logged to W&B or CSV can be read back."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from PIL import Image
from wandb_records import IDENTITY, history, isolate, records, stored_files

from kravl.runtime.errors import InputError
from kravl.tracking.loggers import (
    RunLabels,
    close_logger,
    log_artifact,
    log_histograms,
    log_samples,
    log_summary,
    make_logger,
)


@pytest.fixture(autouse=True)
def isolated_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    isolate(tmp_path, monkeypatch)
    yield
    wandb.teardown()  # it keeps the settings of its first use


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_an_offline_run_holds_its_identity_config_metrics_and_summary(folder: Path) -> None:
    logger = make_logger("wandb", folder, IDENTITY, {"optim": {"lr": 0.5}})

    logger.log_metrics({"train/loss": 1.5}, step=3)
    log_histograms(logger, {"spectrum/norm": [1.0, 2.0, 2.0]}, step=4)
    log_summary(logger, {"test/accuracy": 0.75, "ood_mean": None})
    close_logger(logger)

    run = next(record.run for record in records(folder) if record.HasField("run"))
    assert (run.run_group, run.job_type, run.project) == ("clip_vitb16 dtd 16-shot", "kra", "kravl")
    assert run.display_name == "clip_vitb16 dtd 16-shot kra seed2"
    assert sorted(run.tags) == ["16-shot", "clip_vitb16", "dtd", "kra", "seed2"]
    assert {item.key: item.value_json for item in run.config.update}["optim"] == '{"lr":0.5}'
    row = next(row for row in history(folder) if "train/loss" in row)
    assert (row["train/loss"], row["trainer/global_step"]) == (1.5, 3)
    drawn = next(row for row in history(folder) if any(name.startswith("spectrum/norm") for name in row))
    assert drawn["trainer/global_step"] == 4
    assert sum(drawn.get("spectrum/norm/values") or drawn["spectrum/norm"]["values"]) == 3
    updates = [item for record in records(folder) for item in record.summary.update]
    summary = {item.key or "/".join(item.nested_key): item.value_json for item in updates}
    assert summary["test/accuracy"] == "0.75"
    assert "ood_mean" not in summary


def test_sample_predictions_are_a_table_with_thumbnails(folder: Path) -> None:
    logger = make_logger("wandb", folder, IDENTITY, {})
    images = [Image.new("RGB", (800, 400), "red"), Image.new("RGB", (20, 30), "blue")]

    log_samples(logger, "test", [(images[0], "cat", "dog", 0.5), (images[1], "dog", "dog", 0.75)])
    close_logger(logger)

    assert any(row.get("samples/test/nrows") == 2 for row in history(folder))
    files = stored_files(folder)
    table = json.loads(files["samples/test.table.json"].read_text())
    assert table["columns"] == ["image", "class", "predicted", "probability", "correct"]
    assert [row[1:] for row in table["data"]] == [["cat", "dog", 0.5, False], ["dog", "dog", 0.75, True]]
    assert [(row[0]["width"], row[0]["height"]) for row in table["data"]] == [(256, 128), (20, 30)]
    with Image.open(files[table["data"][0][0]["path"]]) as shown:
        assert shown.getpixel((0, 0)) == (255, 0, 0)
    assert images[0].size == (800, 400)


def test_the_adapter_is_an_artifact_that_stays_in_its_place(folder: Path) -> None:
    adapter = folder / "adapter.safetensors"
    adapter.write_bytes(b"factors")
    logger = make_logger("wandb", folder, IDENTITY, {})

    log_artifact(logger, adapter)
    close_logger(logger)

    artifact = next(record.artifact for record in records(folder) if record.HasField("artifact"))
    assert (artifact.name, artifact.type) == (f"adapter-{(folder / 'wandb_id').read_text()}", "adapter")
    assert stored_files(folder) == {"adapter.safetensors": adapter}


def test_csv_keeps_metrics_config_and_summary(folder: Path) -> None:
    logger = make_logger("csv", folder, IDENTITY, {"optim": {"lr": 0.5}})

    logger.log_metrics({"train/loss": 1.5}, step=3)
    logger.save()
    log_summary(logger, {"test/accuracy": 0.75, "ood_mean": None})
    log_samples(logger, "test", [])
    close_logger(logger)

    version = folder / "csv/version_0"
    metrics = list(csv.DictReader((version / "metrics.csv").read_text().splitlines()))
    assert metrics == [{"step": "3", "train/loss": "1.5"}]
    assert (version / "summary.csv").read_text().splitlines() == ["metric,value", "test/accuracy,0.75"]
    assert "lr: 0.5" in (version / "hparams.yaml").read_text()


def test_none_keeps_nothing(folder: Path) -> None:
    logger = make_logger("none", folder, IDENTITY, {})

    log_summary(logger, {"a": 1.0})
    close_logger(logger)

    assert logger is False
    assert list(folder.iterdir()) == []


def test_wandb_disabled_by_its_own_variable_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    assert make_logger("wandb", folder, IDENTITY, {}) is False


def test_an_unknown_kind_of_tracking_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown tracking 'wand': did you mean 'wandb'"):
        make_logger("wand", folder, IDENTITY, {})


def test_long_names_make_tags_that_wandb_accepts() -> None:
    identity = RunLabels("hf-hub:" + "x" * 80, "kra", "dtd", shots=None, seed=1)

    assert max(map(len, identity.tags)) == 64
    assert identity.tags[3] == "all-shot"
