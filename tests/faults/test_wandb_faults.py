"""Row 11: whatever becomes of W&B, training goes on, every step is kept, and what W&B has can be synced later."""

import csv
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import wandb
from faults.campaign import Outcome, Row
from full_disk import full_disk
from wandb_records import FAKE_KEY, IDENTITY, history, isolate

from kravl.tracking.loggers import make_trackers

STEPS = 30
SECONDS = 5.0
ROOM = 2**15  # bytes that fit on the full disk
Patch = pytest.MonkeyPatch


def _server(statuses: Iterator[int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = next(statuses)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Not into the output of the tests."""

    return Handler


@contextmanager
def _answering(patch: Patch, statuses: Iterator[int]) -> Iterator[None]:
    patch.setenv("WANDB_API_KEY", FAKE_KEY)
    with ThreadingHTTPServer(("127.0.0.1", 0), _server(statuses)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def _errors() -> Iterator[int]:
    while True:
        yield 500


def _errors_after_the_first() -> Iterator[int]:
    yield 200
    yield from _errors()


@contextmanager
def no_key(patch: Patch) -> Iterator[None]:
    yield


@contextmanager
def refused(patch: Patch) -> Iterator[None]:
    patch.setenv("WANDB_API_KEY", FAKE_KEY)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    yield


@contextmanager
def silent(patch: Patch) -> Iterator[None]:
    patch.setenv("WANDB_API_KEY", FAKE_KEY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@contextmanager
def failing(patch: Patch) -> Iterator[None]:
    with _answering(patch, _errors()):
        yield


@contextmanager
def failing_later(patch: Patch) -> Iterator[None]:
    with _answering(patch, _errors_after_the_first()):
        yield


@contextmanager
def disk_full(patch: Patch) -> Iterator[None]:
    with full_disk(ROOM):  # W&B's process, which is started within, inherits the limit
        yield


def kill_service() -> None:
    """SIGKILL to the process of W&B, of whichever thread it is a child."""
    children = [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    for pid in children:
        if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)


def nothing() -> None:
    """The fault is there from the beginning."""


# what is around the run, what happens halfway, and where every step must be
Fault = tuple[Callable[[Patch], AbstractContextManager[None]], Callable[[], None], set[str]]
BOTH = {"W&B", "csv"}
FAULTS: Mapping[str, Fault] = {
    "no key": (no_key, nothing, BOTH),
    "connection refused": (refused, nothing, BOTH),
    "a server that never answers": (silent, nothing, BOTH),
    "a server that fails": (failing, nothing, BOTH),
    "a server that fails later": (failing_later, nothing, BOTH),
    "its disk is full": (disk_full, nothing, set()),
    "its process is killed": (no_key, kill_service, {"csv"}),
}


def run_through(folder: Path, fault: str) -> tuple[float, str]:
    """Seconds of a run that logs under ``fault``, and what went wrong, else empty."""
    around, halfway, whole = FAULTS[fault]
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with Patch.context() as patch:
        isolate(folder, patch)
        patch.setattr("kravl.tracking.server.PROBE_SECONDS", 2.0)
        with around(patch):
            trackers = make_trackers("wandb", folder, IDENTITY, {"lr": 0.1, "note": "x" * 4000})
            [tracker] = trackers.each
            for step in range(STEPS):
                if step == STEPS // 2:
                    time.sleep(0.5)  # what it has been given, it has taken
                    halfway()
                tracker.log_metrics({"loss": float(step), "text": "y" * 2000}, step=step)
            tracker.attempt(lambda: tracker.final({"test/accuracy": 0.5}))
            trackers.close()
        seconds = time.perf_counter() - begin
        found = kept(folder)
    lacking = [place for place in sorted(whole) if found[place] != set(range(STEPS))]
    return seconds, f"{fault}: not every step is in {' and '.join(lacking)}" if lacking else ""


def kept(folder: Path) -> dict[str, set[int]]:
    """The steps in W&B's record, from which a sync uploads, and those in CSV."""
    synced = {int(str(row["trainer/global_step"])) for row in history(folder) if "loss" in row}
    wandb.teardown()
    rows = [row for file in folder.glob("csv/*/metrics.csv") for row in csv.DictReader(file.read_text().splitlines())]
    return {"W&B": synced, "csv": {int(row["step"]) for row in rows}}


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` faults, each held against the time of a run without W&B's network."""
    usual = min(run_through(folder / f"usual{i}", "no key")[0] for i in range(2))
    failures, added = [], []
    for fault in list(FAULTS)[:count]:
        seconds, problem = run_through(folder / fault.replace(" ", "_"), fault)
        added.append(seconds - usual)
        failures += [problem] if problem else []
        failures += [f"{fault}: {seconds - usual:.1f} s more"] if seconds - usual > SECONDS else []
    return Outcome(len(added), f"0 stopped, at most {max(added):.1f} s more", failures)


ROW = Row(11, "W&B fails", "5 faults, 0 stopped runs, < 5 s more", len(FAULTS), len(FAULTS), run)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds W&B's process through Linux's /proc")
@pytest.mark.parametrize("fault", ["a server that fails later", "its disk is full", "its process is killed"])
def test_a_run_goes_on_and_can_be_synced_later(fault: str, tmp_path: Path) -> None:
    assert run_through(tmp_path / "run", fault)[1] == ""
