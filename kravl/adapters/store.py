"""Adapters as one safetensors file: what trained, how it was made, and on which weights."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import kravl
from kravl.adapters.digest import sha256
from kravl.adapters.set import AdapterSet
from kravl.errors import InputError


def save_adapters(adapters: AdapterSet, path: Path) -> None:
    """Write all that trains to ``path``, with method, sites, hyper-parameters and hashes as metadata.

    The file appears whole or not at all: it is written beside ``path`` and moved there.
    """
    tensors = {name: tensor.contiguous() for name, tensor in adapters.state_dict().items()}
    metadata = {"kravl_version": kravl.__version__, "tensors_sha256": sha256(tensors)} | _identity(adapters)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_adapters(adapters: AdapterSet, path: Path) -> None:
    """Load what `save_adapters` wrote into equal adapters on equal base weights.

    Raises:
        InputError: no such file, not whole, or of another method, other sites, hyper-parameters or base weights;
            nothing has changed.
        RuntimeError: the adapters are merged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read as an adapter file: {error}") from error
    for key, ours in _identity(adapters).items():
        if (theirs := metadata.get(key)) != ours:
            raise InputError(f"{str(path)!r} does not fit this model: {_difference(key, theirs, ours)}")
    if metadata.get("tensors_sha256") != sha256(tensors):
        raise InputError(f"{str(path)!r} is damaged: its tensors are not those that were saved")
    adapters.load_state_dict(tensors)


def _identity(adapters: AdapterSet) -> dict[str, str]:
    """What a file and a model must have in common; the base weights last, since the others explain more."""
    description = adapters.description()
    parts = {key: json.dumps(description[key], sort_keys=True) for key in ("method", "hyperparameters", "sites")}
    return parts | {"base_sha256": adapters.base_sha256()}


def _difference(key: str, theirs: str | None, ours: str) -> str:
    if key != "sites" or theirs is None:
        return f"its {key} is {theirs}, the model's {ours}"
    a, b = json.loads(theirs), json.loads(ours)
    names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    return f"it adapts {len(a)} sites, the model {len(b)}; they differ in {names[:3]}"
