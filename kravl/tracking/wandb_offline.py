"""Reads the folders that W&B leaves on disk (offline-run-*, run-*) back into what metrics.json and cost.json hold.

A .wandb file is LevelDB's log format (https://github.com/google/leveldb/blob/main/doc/log_format.md) of protocol
buffers, with plain CRC-32.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError

MAGIC = b":W&B"
HEADER, BLOCK = 7, 32768  # bytes: of the file and of each chunk (crc, length, kind); no chunk crosses a block's end
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_offline(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run that W&B keeps on disk below ``folder``, and a line for each file that cannot be used or is cut short.

    A run is ``record`` (as metrics.json), ``cost`` (as cost.json) and the ``folder`` of W&B's file; one whose
    metrics.json stands beside W&B's folder is left out. One that was resumed has several files, of which the last with
    a record counts.
    """
    found: dict[str, dict[str, Any]] = {}
    without: dict[str, str] = {}
    problems: list[str] = []
    for path in sorted(folder.rglob("run-*.wandb")):
        if any((parent / "metrics.json").exists() for parent in path.parents[1:3]):
            continue
        config, summary, cut = _contents(path)
        problems += [f"{path}: {cut}; what comes before is read"] if cut else []
        if not isinstance(record := summary.get("record"), dict):
            without[path.stem] = f"skipped {path}: it holds no result (unfinished, or of an earlier kravl)"
            continue
        cost = summary.get("cost")
        found[path.stem] = {
            "record": {**record, "config": config},
            "cost": cost if isinstance(cost, dict) else {},
            "folder": path.parent,
        }
    return list(found.values()), [*problems, *(line for name, line in without.items() if name not in found)]


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Config, summary, and why reading stopped before the end, if it did."""
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    try:
        for record in records(path):
            for target, kind in ((config, "config"), (summary, "summary")):
                if record.HasField(kind):
                    for item in getattr(record, kind).update:
                        _put(target, list(item.nested_key) or [item.key], json.loads(item.value_json))
            if record.HasField("run"):
                for item in record.run.config.update:
                    config[item.key] = json.loads(item.value_json)
    except (OSError, ValueError) as error:
        return _ours(config), summary, str(error)
    return _ours(config), summary, None


def _put(target: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"{key} is both a value and a group of values")
        target = inner
    target[keys[-1]] = value


def _ours(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "_wandb"}


def records(path: Path) -> Iterator[Any]:
    """The ``Record``s (protocol buffers) of a .wandb file. Raises InputError where it is cut short or damaged."""
    from google.protobuf.message import DecodeError  # W&B takes a second to import; most reports need none of it
    from wandb.proto import wandb_internal_pb2

    for number, data in enumerate(_chunks(path.read_bytes())):
        try:
            yield wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
        except DecodeError as error:
            raise InputError(f"record {number} is no record of W&B: {error}") from error


def _chunks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(MAGIC):
        raise InputError("not a file of W&B")
    whole, position = b"", HEADER
    while position < len(data):
        if (left := BLOCK - position % BLOCK) < HEADER:
            position += left
            continue
        checksum = int.from_bytes(data[position : position + 4], "little")
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind, end = data[position + 6 : position + 7], position + HEADER + length
        if end > len(data) or not kind:
            raise InputError(f"cut short at byte {len(data)}")
        if zlib.crc32(data[position + 6 : end]) != checksum or not WHOLE <= kind[0] <= LAST:
            raise InputError(f"damaged at byte {position}")
        whole = data[position + HEADER : end] if kind[0] in (WHOLE, FIRST) else whole + data[position + HEADER : end]
        position = end
        if kind[0] in (WHOLE, LAST):
            yield whole
