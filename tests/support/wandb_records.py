"""Reads what an offline W&B run wrote, and keeps W&B's tests away from the user's own W&B."""

import json
import os
from pathlib import Path

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from kravl.tracking import wandb_offline, wandb_run
from kravl.tracking.loggers import RunLabels

IDENTITY = RunLabels("clip_vitb16", "kra", "dtd", shots=16, seed=2)
FAKE_KEY = "0123456789abcdef" * 2 + "01234567"


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No W&B variable, key or proxy, a home in ``folder`` and a short wait for the host."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setattr(wandb_run, "PROBE_SECONDS", 0.5)
    wandb.teardown()  # what another test set up in this process would keep its host


def records(folder: Path) -> list[Record]:
    """The records of the offline run below ``folder``."""
    wandb.teardown()  # finish() returns a little before its process has written the file
    return list(wandb_offline.records(next(folder.glob("wandb/offline-run-*/run-*.wandb"))))


def history(folder: Path) -> list[dict[str, object]]:
    rows = [record.history.item for record in records(folder) if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def stored_files(folder: Path) -> dict[str, Path]:
    """Path inside an artifact -> where a sync will take the file from."""
    artifacts = [record.artifact for record in records(folder) if record.HasField("artifact")]
    return {entry.path: Path(entry.local_path) for artifact in artifacts for entry in artifact.manifest.contents}
