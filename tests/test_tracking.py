"""W&B, CSV or nothing: what was logged can be read back, and no key, network or W&B process is needed to go on."""

import csv
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from wandb.proto.wandb_internal_pb2 import Record

from kravl import wandb_mode
from kravl.errors import InputError
from kravl.tracking import Identity, close_logger, log_artifact, log_samples, log_summary, make_logger
from kravl.wandb_logger import SafeWandbLogger

IDENTITY = Identity("clip_vitb16", "kra", "dtd", shots=16, seed=2)
FAKE_KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(wandb_mode, "PROBE_SECONDS", 0.5)
    yield
    wandb.teardown()  # it keeps the settings of its first use


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def records(folder: Path) -> list[Record]:
    """The records of an offline run: LevelDB's log format, 7 bytes before each chunk of a 32 KiB block."""
    data = next(folder.glob("wandb/offline-run-*/run-*.wandb")).read_bytes()
    found, partial, position = [], b"", 7
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        partial += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last
            found.append(Record.FromString(partial))
            partial = b""
    return found


def history(folder: Path) -> list[dict[str, object]]:
    rows = [record.history.item for record in records(folder) if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def stored_files(folder: Path) -> dict[str, Path]:
    """Path inside an artifact -> where a sync will take the file from."""
    artifacts = [record.artifact for record in records(folder) if record.HasField("artifact")]
    return {entry.path: Path(entry.local_path) for artifact in artifacts for entry in artifact.manifest.contents}


def test_an_offline_run_holds_its_identity_config_metrics_and_summary(folder: Path) -> None:
    logger = make_logger("wandb", folder, IDENTITY, {"optim": {"lr": 0.5}})

    logger.log_metrics({"train/loss": 1.5}, step=3)
    log_summary(logger, {"test/accuracy": 0.75, "ood_mean": None})
    close_logger(logger)

    run = next(record.run for record in records(folder) if record.HasField("run"))
    assert (run.run_group, run.job_type, run.project) == ("clip_vitb16 dtd 16-shot", "kra", "kravl")
    assert run.display_name == "clip_vitb16 dtd 16-shot kra seed2"
    assert sorted(run.tags) == ["16-shot", "clip_vitb16", "dtd", "kra", "seed2"]
    assert {item.key: item.value_json for item in run.config.update}["optim"] == '{"lr":0.5}'
    row = next(row for row in history(folder) if "train/loss" in row)
    assert (row["train/loss"], row["trainer/global_step"]) == (1.5, 3)
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


def test_a_resumed_run_keeps_its_id_and_another_folder_has_its_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ids = []

    for path in (folder, folder, other):
        logger = make_logger("wandb", path, IDENTITY, {})
        ids.append(logger.experiment.id)
        close_logger(logger)

    assert ids[0] == ids[1] != ids[2]


def test_without_a_key_the_run_is_offline_and_says_how_to_sync(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="kravl")

    logger = make_logger("wandb", folder, IDENTITY, {})
    close_logger(logger)

    assert f"W&B stays offline: no API key for {wandb.Settings().base_url}" in caplog.messages
    assert f"to upload this run to W&B: wandb sync {folder}/wandb/offline-run-*-{logger.version}" in caplog.messages
    assert len(list(folder.glob(f"wandb/offline-run-*-{logger.version}/run-{logger.version}.wandb"))) == 1


def test_with_a_key_and_a_host_that_never_answers_the_run_is_offline_and_holds_no_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kravl")
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        logger = make_logger("wandb", folder, IDENTITY, {})
        close_logger(logger)

    assert any("does not answer" in message for message in caplog.messages)
    stored = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert stored
    assert not any(FAKE_KEY.encode() in data for data in stored)


@pytest.mark.parametrize("netrc", ["", "machine elsewhere.org login user password secret", "machine"])
def test_a_netrc_without_the_host_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netrc: str) -> None:
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    assert wandb_mode.obstacle() == "no API key for http://127.0.0.1:9"


def test_a_key_in_netrc_for_the_api_host_serves_the_default_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {FAKE_KEY}\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens

    assert wandb_mode.obstacle() == f"{wandb.Settings().base_url} does not answer"


def test_a_key_in_netrc_is_found_and_an_unreachable_host_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {FAKE_KEY}\n")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    assert wandb_mode.obstacle() == "http://127.0.0.1:9 does not answer"


def test_a_run_goes_on_when_the_process_of_wandb_dies_and_the_next_run_has_a_new_one(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = make_logger("wandb", folder, IDENTITY, {})
    assert isinstance(logger, SafeWandbLogger)
    _kill_wandb()

    for step in range(20):
        logger.log_metrics({"a": 1.0}, step=step)
        time.sleep(0.05)
    log_summary(logger, {"b": 2.0})
    close_logger(logger)

    assert logger.lost
    assert sum("the run goes on without it" in message for message in caplog.messages) == 1
    other = tmp_path / "other"
    other.mkdir()
    successor = make_logger("wandb", other, IDENTITY, {})
    successor.log_metrics({"a": 3.0}, step=0)
    close_logger(successor)
    assert any(row.get("a") == 3.0 for row in history(other))


def _kill_wandb() -> None:
    children = [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    service = [pid for pid in children if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(service) == 1
    os.kill(service[0], signal.SIGKILL)


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


def test_csv_takes_the_place_of_a_wandb_that_cannot_start(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "wandb_id").mkdir()

    logger = make_logger("wandb", folder, IDENTITY, {})

    assert isinstance(logger, CSVLogger)
    assert any("W&B does not start offline (IsADirectoryError" in message for message in caplog.messages)


def test_an_unknown_kind_of_tracking_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown tracking 'wand': did you mean 'wandb'"):
        make_logger("wand", folder, IDENTITY, {})


def test_long_names_make_tags_that_wandb_accepts() -> None:
    identity = Identity("hf-hub:" + "x" * 80, "kra", "dtd", shots=None, seed=1)

    assert max(map(len, identity.tags)) == 64
    assert identity.tags[3] == "all-shot"
