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
from kravl.tracking.loggers import make_trackers
from kravl.tracking.trackers.tracker import RunLabels


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
    trackers = make_trackers("wandb", folder, IDENTITY, {"optim": {"lr": 0.5}})

    trackers.loggers[0].log_metrics({"train/loss": 1.5}, step=3)
    trackers.histograms({"spectrum/norm": [1.0, 2.0, 2.0]}, step=4)
    trackers.each[0].final({"test/accuracy": 0.75})
    trackers.close()

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
    assert summary["test/accuracy"] == summary["accuracy/test"] == "0.75"


def test_curves_of_sites_are_hidden_from_the_charts_that_wandb_makes(folder: Path) -> None:
    make_trackers("wandb", folder, IDENTITY, {}).close()

    metrics = {record.metric.glob_name: record.metric for record in records(folder) if record.HasField("metric")}
    assert metrics["sites/*"].options.hidden
    assert not metrics["*"].options.hidden


def test_sample_predictions_are_a_table_with_thumbnails(folder: Path) -> None:
    trackers = make_trackers("wandb", folder, IDENTITY, {})
    images = [Image.new("RGB", (800, 400), "red"), Image.new("RGB", (20, 30), "blue")]

    trackers.samples("test", [(images[0], "cat", "dog", 0.5), (images[1], "dog", "dog", 0.75)])
    trackers.close()

    assert any(row.get("samples/test/nrows") == 2 for row in history(folder))
    files = stored_files(folder)
    table = json.loads(files["samples/test.table.json"].read_text())
    assert table["columns"] == ["image", "class", "predicted", "probability", "correct"]
    assert [row[1:] for row in table["data"]] == [["cat", "dog", 0.5, False], ["dog", "dog", 0.75, True]]
    assert [(row[0]["width"], row[0]["height"]) for row in table["data"]] == [(256, 128), (20, 30)]
    with Image.open(files[table["data"][0][0]["path"]]) as shown:
        assert shown.getpixel((0, 0)) == (255, 0, 0)
    assert images[0].size == (800, 400)


def test_the_adapter_is_an_artifact_that_stays_in_its_place_beside_its_card(folder: Path) -> None:
    adapter = folder / "adapter.safetensors"
    adapter.write_bytes(b"factors")
    trackers = make_trackers("wandb", folder, IDENTITY, {})

    trackers.adapter({adapter.name: adapter, "README.md": "# été"}, {"cell": "kra-01234567"})
    trackers.close()

    artifact = next(record.artifact for record in records(folder) if record.HasField("artifact"))
    assert (artifact.name, artifact.type) == (f"adapter-{(folder / 'wandb_id').read_text()}", "adapter")
    assert json.loads(artifact.metadata) == {"cell": "kra-01234567"}
    files = stored_files(folder)
    assert files.pop("README.md").read_text(encoding="utf-8") == "# été"
    assert files == {"adapter.safetensors": adapter}


def test_csv_keeps_metrics_config_and_summary(folder: Path) -> None:
    trackers = make_trackers("csv", folder, IDENTITY, {"optim": {"lr": 0.5}})

    trackers.loggers[0].log_metrics({"train/loss": 1.5}, step=3)
    trackers.each[0].final({"test/accuracy": 0.75})
    trackers.close()

    version = folder / "csv/version_0"
    metrics = list(csv.DictReader((version / "metrics.csv").read_text().splitlines()))
    assert metrics == [{"step": "3", "train/loss": "1.5"}]
    assert (version / "summary.csv").read_text().splitlines() == ["metric,value", "test/accuracy,0.75"]
    assert "lr: 0.5" in (version / "hparams.yaml").read_text()


def test_csv_beside_wandb_is_one_copy(folder: Path) -> None:
    trackers = make_trackers(["wandb", "csv"], folder, IDENTITY, {})
    for logger in trackers.loggers:
        logger.log_metrics({"train/loss": 1.5}, step=3)
    trackers.close()

    assert [file.parent.name for file in folder.glob("csv/*/metrics.csv")] == ["version_0"]


def test_none_keeps_nothing(folder: Path) -> None:
    trackers = make_trackers("none", folder, IDENTITY, {})

    trackers.close()

    assert trackers.loggers == []
    assert list(folder.iterdir()) == []


def test_wandb_disabled_by_its_own_variable_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    assert make_trackers("wandb", folder, IDENTITY, {}).loggers == []


@pytest.mark.parametrize(
    ("tracking", "line"),
    [
        ("wand", "unknown tracking 'wand': did you mean 'wandb'"),
        (["csv", "tensorbord"], "unknown tracking 'tensorbord': did you mean 'tensorboard'"),
        (["csv", "csv"], r"tracking=\[csv,csv\]: each tracker once, and none alone"),
        (["csv", "none"], r"tracking=\[csv,none\]: each tracker once, and none alone"),
    ],
)
def test_a_wrong_tracker_is_one_line(folder: Path, tracking: str | list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        make_trackers(tracking, folder, IDENTITY, {})


def test_long_names_make_tags_that_wandb_accepts() -> None:
    identity = RunLabels("hf-hub:" + "x" * 80, "kra", "dtd", shots=None, seed=1)

    assert max(map(len, identity.tags)) == 64
    assert identity.tags[3] == "all-shot"
