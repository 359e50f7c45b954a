"""Twelve processes that start the same run at once: one owns it, the others say who does, on one host or on twelve."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.victims import launch

from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import folder_of, open_run

AT_ONCE = 12


def started_at_once(count: int, folder: Path) -> Outcome:
    """``count`` rounds of twelve starts: of one run, on one host or on twelve after a dead owner; then of a sweep."""
    failures = []
    for i in range(count):
        told = _round(folder / f"one{i}", [folder / f"one{i}/run"] * AT_ONCE, apart=i % 2 == 1)
        owners = [t["pid"] for t in told if t["error"] is None]
        refused = [t["error"] for t in told if t["error"] is not None]
        if len(owners) != 1 or not all(f"in use by process {owners[0]} on" in error for error in refused):
            failures.append(f"round {i}: owners {owners}, the others: {set(refused)}")
    paths = [folder_of(str(folder / "sweep"), "name", 1, {"lr": lr}) for lr in range(AT_ONCE)]
    owners = [t["pid"] for t in _round(folder / "sweep", paths, apart=False) if t["error"] is None]
    if len(owners) != AT_ONCE or len(set(paths)) != AT_ONCE:
        failures.append(f"sweep: {len(owners)} of {AT_ONCE} own a folder")
    starts = AT_ONCE * count
    return Outcome(starts, f"{starts} starts, {count - len(failures)} of {count} rounds with one owner", failures)


def _round(place: Path, paths: list[Path], apart: bool) -> list[dict[str, str | int | None]]:
    place.mkdir(parents=True, exist_ok=True)
    if apart:
        _leave_dead_owner(paths[0])
    begin = time.time() + 1.0
    outs = [place / f"{i}.json" for i in range(len(paths))]
    pairs = zip(paths, outs, strict=True)
    processes = [launch(_open, path, out, begin, apart) for path, out in pairs]
    for process in processes:
        process.join()
    return [json.loads(out.read_text()) for out in outs]


def _leave_dead_owner(path: Path) -> None:
    path.mkdir()
    (path / ".owner").write_text(json.dumps({"pid": 1, "host": "gone", "since": "long ago"}))
    os.utime(path / ".owner", (0, 0))


def _open(path: Path, out: Path, begin: float, apart: bool) -> None:
    if apart:  # on a network file system whose locks hold within a host alone
        fcntl.flock = lambda descriptor, operation: None
        socket.gethostname = lambda: f"host{os.getpid()}"
    time.sleep(max(0.0, begin - time.time()))
    error = None
    try:
        with open_run(path, {}, overwrite=False):
            deadline = time.monotonic() + 30
            while len(list(out.parent.glob("*.json"))) < AT_ONCE - 1 and path.parent == out.parent:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    except InputError as refusal:
        error = str(refusal)
    out.write_text(json.dumps({"pid": os.getpid(), "error": error}))


ROW = Row(
    7,
    "12 processes start the same run at once; 12 jobs of a sweep",
    "1 owner in each of 10 rounds, the others name its pid; 12 distinct folders",
    10,
    2,
    started_at_once,
)
