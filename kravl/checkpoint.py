"""Training state without pickle: a folder of safetensors, JSON and a manifest with sha256, moved into place whole."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kravl.errors import InputError, first_line

log = logging.getLogger(__name__)
FILES = ("tensors.safetensors", "state.json")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written; those written before it are whole."""


class SafeCheckpointIO(CheckpointIO):
    """Lightning's place to plug in a format: each checkpoint is a folder that appears whole or not at all."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary folder beside ``path``, flush it to disk, and rename it.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        final = Path(path)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(checkpoint, temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.replace(final)
            _flush(final.parent)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"cannot write the checkpoint {final}: {first_line(error)}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The saved dictionary, tensors on the CPU. Raises InputError where a file is missing or altered."""
        folder = Path(path)
        if reason := damage(folder):
            raise InputError(f"checkpoint {folder} is damaged: {reason}")
        tree = json.loads((folder / FILES[1]).read_text())
        return _decode(tree, load_file(folder / FILES[0]))

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def _write(checkpoint: Mapping[str, Any], folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    tree = _encode(checkpoint, tensors)
    save_file(tensors, folder / FILES[0])
    (folder / FILES[1]).write_text(json.dumps(tree))
    manifest = {name: _sha256(folder / name) for name in FILES}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for file in [*folder.iterdir(), folder]:
        _flush(file)


def damage(folder: Path) -> str | None:
    """What is wrong with the checkpoint ``folder``, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        altered = [name for name in FILES if _sha256(folder / name) != manifest[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__} {error}"
    return f"{altered[0]} is not what was written" if altered else None


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of ``folder``; damaged ones are passed over with a warning, leftovers swept."""
    for leftover in folder.glob(".*.ckpt.*"):
        shutil.rmtree(leftover)
    for path in sorted(folder.glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[-1]), reverse=True):
        if not (reason := damage(path)):
            return path
        log.warning("checkpoint %s is damaged (%s); going back to the one before", path, reason)
        shutil.rmtree(path)
    return None


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; tensors are put aside under numbers, dictionaries become lists of pairs (keys may be ints)."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), f"cannot save a {type(value).__name__}"
    return value


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    return {key: _decode(item, tensors) for key, item in content}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
