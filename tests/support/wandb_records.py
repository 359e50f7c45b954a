"""Reads what an offline W&B run wrote, and keeps W&B's tests away from the user's own W&B.

A .wandb file is LevelDB's log format (https://github.com/google/leveldb/blob/main/doc/log_format.md) of protocol
buffers.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from kravl.tracking import server
from kravl.tracking.trackers.tracker import RunLabels

IDENTITY = RunLabels("clip_vitb16", "kra", "dtd", shots=16, seed=2)
FAKE_KEY = "0123456789abcdef" * 2 + "01234567"
HEADER, BLOCK = 7, 32768  # bytes: of the file and of each chunk (crc, length, kind); no chunk crosses a block's end
WHOLE, LAST = 1, 4  # kinds of chunks that end a record


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No W&B variable, key or proxy, a home in ``folder`` and a short wait for the host."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.5)
    wandb.teardown()  # what another test set up in this process would keep its host


def records(folder: Path) -> list[Record]:
    """The records of the offline run below ``folder``."""
    wandb.teardown()  # finish() returns a little before its process has written the file
    file = next(folder.glob("wandb/offline-run-*/run-*.wandb"))
    return [Record.FromString(each) for each in _whole_records(file.read_bytes())]


def _whole_records(data: bytes) -> Iterator[bytes]:
    whole, position = b"", HEADER
    while position < len(data):
        if (left := BLOCK - position % BLOCK) < HEADER:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        position += HEADER + length
        whole += data[position - length : position]
        if kind in (WHOLE, LAST):
            yield whole
            whole = b""


def logged(folder: Path) -> dict[str, dict[str, Any]]:
    """The ``summary`` and ``config`` that W&B has of the offline run below ``folder`` once it is synced."""
    found: dict[str, dict[str, Any]] = {"summary": {}, "config": {}}
    for record in records(folder):
        _put(found["summary"], record.summary.update)
        _put(found["config"], record.run.config.update)
        _put(found["config"], record.config.update)
    return found


def _put(tree: dict[str, Any], items: Iterable[Any]) -> None:
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        inner = tree
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)


def history(folder: Path) -> list[dict[str, object]]:
    rows = [record.history.item for record in records(folder) if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def stored_files(folder: Path) -> dict[str, Path]:
    """Path inside an artifact -> where a sync will take the file from."""
    artifacts = [record.artifact for record in records(folder) if record.HasField("artifact")]
    return {entry.path: Path(entry.local_path) for artifact in artifacts for entry in artifact.manifest.contents}
