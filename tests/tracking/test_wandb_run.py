"""A run continues without a key, a network or W&B's own process."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import wandb
from wandb.sdk.lib.service.service_token import UnixServiceToken
from wandb_records import FAKE_KEY, IDENTITY, history, isolate

from kravl.tracking.loggers import make_trackers


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


def test_a_resumed_run_keeps_its_id_and_another_folder_has_its_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ids = []

    for path in (folder, folder, other):
        trackers = make_trackers("wandb", path, IDENTITY, {})
        ids.append(trackers.each[0].version)
        trackers.close()

    assert ids[0] == ids[1] != ids[2]


def test_without_a_key_the_run_is_offline_and_says_how_to_sync(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="kravl")

    trackers = make_trackers("wandb", folder, IDENTITY, {})
    own = trackers.each[0].version
    trackers.close()

    assert f"W&B stays offline: no API key for {wandb.Settings().base_url}" in caplog.messages
    assert f"to upload this run to W&B: wandb sync {folder}/wandb/offline-run-*-{own}" in caplog.messages
    assert len(list(folder.glob(f"wandb/offline-run-*-{own}/run-{own}.wandb"))) == 1


def test_with_a_key_and_a_host_that_never_answers_the_run_is_offline_and_holds_no_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kravl")
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        make_trackers("wandb", folder, IDENTITY, {}).close()

    wandb.teardown()
    assert any("does not answer" in message for message in caplog.messages)
    stored = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert stored
    assert not any(FAKE_KEY.encode() in data for data in stored)


class NotFound(BaseHTTPRequestHandler):
    """A host that answers, and is not W&B's."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(404)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_a_host_that_refuses_the_run_leaves_it_offline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")

        trackers = make_trackers("wandb", folder, IDENTITY, {})
        trackers.each[0].log_metrics({"a": 3.0}, step=0)
        trackers.close()
        rows = history(folder)
        server.shutdown()

    assert any("W&B does not start online" in message for message in caplog.messages)
    assert any(row.get("a") == 3.0 for row in rows)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds W&B's process through Linux's /proc")
def test_a_run_survives_the_death_of_wandbs_process_and_the_next_run_has_a_new_one(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trackers = make_trackers("wandb", folder, IDENTITY, {})
    [tracker] = trackers.each
    _kill_wandb()

    for step in range(20):
        tracker.log_metrics({"a": 1.0}, step=step)
        time.sleep(0.05)
    tracker.attempt(lambda: tracker.final({"b": 2.0}))
    trackers.close()

    assert tracker.lost
    assert sum("the run continues without it" in message for message in caplog.messages) == 1
    other = tmp_path / "other"
    other.mkdir()
    successor = make_trackers("wandb", other, IDENTITY, {})
    successor.each[0].log_metrics({"a": 3.0}, step=0)
    successor.close()
    assert any(row.get("a") == 3.0 for row in history(other))


def _kill_wandb() -> None:
    children = [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    service = [pid for pid in children if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(service) == 1
    os.kill(service[0], signal.SIGKILL)


def test_a_process_of_wandb_that_only_the_environment_remembers_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", UnixServiceToken(parent_pid=1, path=str(folder / "gone")).env_value)

    trackers = make_trackers("wandb", folder, IDENTITY, {})
    trackers.each[0].final({"accuracy": 0.5})
    trackers.close()

    assert list(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_csv_takes_the_place_of_a_wandb_that_cannot_start(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "wandb_id").mkdir()

    trackers = make_trackers("wandb", folder, IDENTITY, {})

    assert [each.kind for each in trackers.each] == ["csv"]
    assert any("W&B does not start offline (IsADirectoryError" in message for message in caplog.messages)
