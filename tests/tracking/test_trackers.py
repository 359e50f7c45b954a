"""Every tracker has the settings, the curves, the final numbers and pictures of a run, once each, and can break."""

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import wandb
from full_disk import full_disk
from PIL import Image
from tracked import EXTERNAL, Tracked, read
from wandb_records import IDENTITY, isolate

from kravl.runtime.errors import InputError
from kravl.tracking.loggers import Trackers, make_trackers
from kravl.tracking.trackers.tracker import RunLabels

ROOM = 2**14  # bytes that fit on the full disk
KINDS = ("wandb", "csv", *EXTERNAL)
SETTINGS = {"optim": {"lr": 0.5, "epochs": 3}, "adapter": {"_target_": "kravl.A", "rank": None}, "cell": "kra-01234567"}
RECORD: dict[str, Any] = {
    "metrics": {"test/accuracy": 0.75, "serif/accuracy": 0.5, "ood_mean": 0.5, "test/ece": 0.1, "harmonic_mean": None},
    "zero_shot": {"test/accuracy": 0.25, "serif/accuracy": 0.5, "ood_mean": 0.5, "test/ece": 0.2},
    "wise_ft": [{"alpha": 0.5, "test/accuracy": 0.625, "ood_mean": 0.5}],
    "trainable_parameters": 12,
    "adapter_bytes": 100,
    "effective_rank": {"mean": 2.5, "a.site": 2.5},
    "method": "kra",
}
DETAILS = {"reliability": {"adapted": {"test": [[1, 0.5, 1.0]]}}, "class_names": ["a"], "images": [1],
           "hits": {"adapted": [1]}}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of MLflow for all tests: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Iterator[None]:
    isolate(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)  # where MLflow puts files of a database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setenv("TRACKIO_PROJECT", "".join(c for c in tmp_path.name if c.isalnum()))
    yield
    wandb.teardown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param in EXTERNAL:
        pytest.importorskip(request.param, reason=f"{request.param} is missing: pip install 'kravl[{request.param}]'")
    return str(request.param)


def train(trackers: Trackers, *steps: int) -> None:
    for step in steps:
        for logger in trackers.loggers:
            logger.log_metrics({"train/loss": float(step)}, step=step)
        trackers.histograms({"spectrum/norm": [1.0, 2.0, step]}, step)


def end(trackers: Trackers) -> None:
    trackers.result(RECORD, {"train_seconds": 1.5, "device": "cpu", "phases": {}}, DETAILS)
    trackers.samples("test", [(Image.new("RGB", (80, 40), "red"), "cat", "dog", 0.5)])
    trackers.adapter({"README.md": "# a card"}, {"cell": "kra-01234567"})
    trackers.close()


def followed(kind: str, folder: Path) -> Tracked:
    trackers = make_trackers(kind, folder, IDENTITY, SETTINGS)
    train(trackers, 1, 2, 3)
    end(trackers)
    return read(kind, folder)


def test_a_tracker_has_the_settings_under_the_same_flat_names(kind: str, folder: Path) -> None:
    settings = followed(kind, folder).settings

    expected = {"optim.lr": "0.5", "adapter._target_": "kravl.A", "adapter.rank": "None", "cell": "kra-01234567"}
    assert {name: settings[name] for name in expected} == expected
    assert float(settings["optim.epochs"]) == 3


def test_a_tracker_has_curves_by_step_and_every_final_number(kind: str, folder: Path) -> None:
    found = followed(kind, folder)

    assert found.metrics["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    finals = {"test/accuracy": 0.75, "serif/accuracy": 0.5, "ood_mean": 0.5, "zero_shot/test/accuracy": 0.25,
              "gain/test/accuracy": 0.5, "gain/ood_mean": 0.0, "trainable_parameters": 12, "effective_rank": 2.5,
              "train_seconds": 1.5}  # fmt: skip
    assert {name: found.last(name) for name in finals} == pytest.approx(finals)
    assert not {"harmonic_mean", "gain/test/ece", "device"} & found.metrics.keys()


def test_a_tracker_of_pictures_has_pictures(kind: str, folder: Path) -> None:
    found = followed(kind, folder)

    expected = {"wandb": {"samples/test", "spectrum/norm"}, "csv": set(), "mlflow": {"samples_test.png", "adapter"}}
    assert expected.get(kind, {"samples/test", "spectrum/norm"}) <= found.drawn


def test_a_resumed_run_goes_on_in_the_same_run_and_repeats_no_step(kind: str, folder: Path) -> None:
    train(make_trackers(kind, folder, IDENTITY, SETTINGS), 1, 2, 3, 4)  # and then it is killed

    resumed = make_trackers(kind, folder, IDENTITY, SETTINGS)
    train(resumed, 3, 4, 5)
    end(resumed)

    if kind == "wandb":  # an offline folder for each process, of one id, which a sync appends
        runs = sorted(folder.glob("wandb/offline-run-*"))
        own = f"run-{(folder / 'wandb_id').read_text()}.wandb"
        assert [file.name for run in runs for file in run.glob("run-*.wandb")] == [own, own]
        assert [read_offline(run) for run in runs] == [[1, 2, 3, 4], [5]]
    else:
        assert read(kind, folder).steps("train/loss") == [1, 2, 3, 4, 5]


def read_offline(run: Path) -> list[int]:
    """Steps of the loss in one offline folder of W&B."""
    other = run.parent.parent / "one" / run.name
    (other / "wandb").mkdir(parents=True)
    run.rename(other / "wandb" / run.name)
    return read("wandb", other).steps("train/loss")


def test_two_runs_of_one_name_are_two(kind: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path, steps in ((folder, (1, 2)), (other, (1, 2, 3))):
        trackers = make_trackers(kind, path, IDENTITY, SETTINGS)
        train(trackers, *steps)
        trackers.close()

    assert read(kind, folder).steps("train/loss") == [1, 2]
    assert read(kind, other).steps("train/loss") == [1, 2, 3]


def test_several_at_once_have_the_same(folder: Path) -> None:
    there = ["wandb", "csv", *(each for each in EXTERNAL if find_spec(each))]
    trackers = make_trackers(there, folder, IDENTITY, SETTINGS)
    train(trackers, 1, 2)
    end(trackers)

    found = [read(each, folder) for each in there]

    assert [each.steps("train/loss") for each in found] == [[1, 2]] * len(there)
    assert [each.last("gain/test/accuracy") for each in found] == pytest.approx([0.5] * len(there))


@pytest.mark.parametrize("broken", EXTERNAL)
def test_one_that_cannot_start_is_told_and_the_others_go_on(
    broken: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(broken, reason=f"{broken} is missing: pip install 'kravl[{broken}]'")
    (folder / "tensorboard").write_text("in the way")
    (folder / "mlflow").mkdir()
    (folder / "mlflow/mlflow.db").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://like.that")
    monkeypatch.setenv("TRACKIO_PROJECT", "registry-of-trackio")

    trackers = make_trackers([broken, "csv"], folder, IDENTITY, SETTINGS)
    train(trackers, 1)
    end(trackers)

    assert [each.kind for each in trackers.each] == ["csv"]
    assert read("csv", folder).steps("train/loss") == [1]
    assert caplog.messages[-1] == f"not tracked, or not to the end: {broken}; metrics.json has everything"


def break_tensorboard(trackers: Trackers) -> None:
    with full_disk(ROOM):
        trackers.histograms({f"spectrum/{number}": list(range(100)) for number in range(100)}, 1)


def break_mlflow(trackers: Trackers) -> None:
    uri = os.environ["MLFLOW_TRACKING_URI"]
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as base, base:
        base.execute("DELETE FROM runs WHERE run_uuid = ?", [trackers.each[0].version])


def break_trackio(trackers: Trackers) -> None:
    import trackio

    time.sleep(1.5)  # its thread writes twice a second
    [run] = trackio.Api().runs(os.environ["TRACKIO_PROJECT"])
    run.delete()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # so TensorBoard's thread ends
@pytest.mark.parametrize("broken", EXTERNAL)
def test_one_that_breaks_in_the_middle_is_told_at_the_end_and_the_others_have_every_step(
    broken: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(broken, reason=f"{broken} is missing: pip install 'kravl[{broken}]'")
    trackers = make_trackers([broken, "csv"], folder, IDENTITY, SETTINGS)
    train(trackers, 1)
    {"tensorboard": break_tensorboard, "mlflow": break_mlflow, "trackio": break_trackio}[broken](trackers)
    train(trackers, 2, 3)
    end(trackers)

    assert read("csv", folder).steps("train/loss") == [1, 2, 3]
    assert caplog.messages[-1].startswith(f"not tracked, or not to the end: {trackers.each[0].title} (")
    assert caplog.messages[-1].endswith("); metrics.json has everything")


def test_mlflow_without_an_address_is_in_the_runs_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is missing: pip install 'kravl[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    adapter = folder / "adapter.safetensors"
    adapter.write_bytes(b"factors")
    trackers = make_trackers("mlflow", folder, IDENTITY, SETTINGS)
    trackers.adapter({adapter.name: adapter, "README.md": "# a card"}, {})
    trackers.close()

    assert (folder / "mlflow/mlflow.db").is_file()
    assert [file.name for file in folder.glob("mlflow/*/artifacts/adapter/*")] == ["README.md"]  # no second copy
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_server_that_does_not_answer_is_told_without_its_password_and_the_runs_folder_takes_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is missing: pip install 'kravl[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:planted@127.0.0.1:9")
    with caplog.at_level(logging.INFO, logger="kravl"):
        make_trackers("mlflow", folder, IDENTITY, SETTINGS).close()

    beside = f"http://127.0.0.1:9 does not answer; the run is tracked in {folder / 'mlflow'}"
    assert f"MLflow: {beside}" in caplog.messages
    assert (folder / "mlflow/mlflow.db").is_file()
    assert "planted" not in caplog.text
    assert not any(b"planted" in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_runs_that_begin_at_once_share_a_database_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is missing: pip install 'kravl[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared/mlflow.db")
    folders = [tmp_path / name for name in ("one", "two")]
    for path in folders:
        path.mkdir()

    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(lambda path: make_trackers("mlflow", path, IDENTITY, SETTINGS), folders))

    for trackers in begun:
        train(trackers, 1, 2)
        trackers.close()
    assert [read("mlflow", path).steps("train/loss") for path in folders] == [[1, 2]] * 2


def test_settings_that_a_run_is_resumed_with_are_tags_of_mlflow(folder: Path, store: str) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is missing: pip install 'kravl[mlflow]'")
    make_trackers("mlflow", folder, IDENTITY, {"optim": {"lr": 0.5}}).close()

    trackers = make_trackers("mlflow", folder, IDENTITY, {"optim": {"lr": 0.25}})
    trackers.close()

    run = mlflow.MlflowClient(store).get_run(trackers.each[0].version)
    assert run.data.params == {"optim.lr": "0.5"}
    assert run.data.tags["resumed with optim.lr"] == "0.25"
    assert run.info.status == "FINISHED"


def test_names_that_mlflow_does_not_take_are_spelt_otherwise(folder: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is missing: pip install 'kravl[mlflow]'")
    trackers = make_trackers("mlflow", folder, RunLabels("b", "m+", "d", None, 1), SETTINGS)

    trackers.each[0].log_metrics({"fog+snow/accuracy": 0.5, "été/accuracy": 0.25}, step=1)
    trackers.close()

    assert {"fog_snow/accuracy", "été/accuracy"} <= read("mlflow", folder).metrics.keys()


def test_a_package_that_is_missing_is_one_line_with_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"tracking=mlflow needs the package mlflow: pip install 'kravl\[mlflow\]'"):
        make_trackers(["csv", "mlflow"], folder, IDENTITY, {})

    assert list(folder.iterdir()) == []


def test_a_caption_in_any_script_is_drawn(folder: Path) -> None:
    from kravl.tracking.trackers.sheet import contact_sheet

    sheet = contact_sheet([(Image.new("L", (300, 20)), "猫 " * 30, "été", 1.0)] * 9)

    assert sheet.size == (1024, 308)


def test_a_failure_is_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trackers = make_trackers("csv", folder, IDENTITY, {})
    with caplog.at_level(logging.WARNING, logger="kravl"):
        shutil.rmtree(folder / "csv")
        train(trackers, 1, 2, 3)
        trackers.close()

    assert [message.startswith("CSV failed (") for message in caplog.messages] == [True, False]
