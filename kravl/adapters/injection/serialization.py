"""Adapters as one safetensors file: the trained tensors, their settings, and the weights they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import kravl
from kravl.adapters.injection.adapter_set import AdapterSet, sha256
from kravl.runtime.dtypes import refuse_other_dtypes
from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, refuse_endless, write_atomic

METADATA_KEY = "kravl"
SHOWN = 300  # characters of an untrusted description in an error


def save_adapters(
    adapters: AdapterSet,
    path: Path | str,
    facts: Mapping[str, object] | None = None,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write everything that trains to ``path``; method, sites, hyper-parameters and hashes are JSON in its metadata.

    ``facts`` are what else a model must have in common with this one, such as the classes in their order; what a reader
    may want to know ``about`` it is kept beside them and not compared.

    The write is atomic: a temporary file beside ``path`` is renamed. Equal adapters give equal files.

    Examples:
        >>> import tempfile
        >>> from functools import partial
        >>> from pathlib import Path
        >>> from torch import nn
        >>> from kravl import LoRA, inject, load_adapters, save_adapters
        >>> model = nn.Sequential(nn.Linear(16, 32))
        >>> adapters = inject(model, partial(LoRA, rank=2, alpha=2), ["0"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_adapters(adapters, Path(folder) / "adapter.safetensors")
        ...     load_adapters(adapters, Path(folder) / "adapter.safetensors")
    """
    tensors = {name: tensor.contiguous() for name, tensor in adapters.state_dict().items()}
    record = {"kravl_version": kravl.__version__, "tensors_sha256": sha256(tensors)} | _identity(adapters)
    record |= {"facts": dict(facts or {})} | ({"about": dict(about)} if about else {})
    # one entry, because safetensors writes several in random order
    content = save(tensors, {METADATA_KEY: json.dumps(record)})
    write_atomic(Path(path), content)


def load_adapters(adapters: AdapterSet, path: Path | str, facts: Mapping[str, object] | None = None) -> None:
    """Load what `save_adapters` wrote into equal adapters on equal base weights.

    Raises:
        InputError: the file is missing or truncated, or its method, sites, hyper-parameters, base weights or ``facts``
            differ (the latter are not compared if an older file has none), or a tensor is of another kind, such as
            integers; nothing is loaded.
        RuntimeError: the adapters are merged.

    Examples:
        >>> from functools import partial
        >>> from torch import nn
        >>> from kravl import InputError, KRAdapter, inject, load_adapters
        >>> adapters = inject(nn.Sequential(nn.Linear(16, 32)), KRAdapter, ["0"])
        >>> try:
        ...     load_adapters(adapters, "nowhere.safetensors")
        ... except InputError as error:
        ...     print(str(error)[:64])
        'nowhere.safetensors' cannot be read as an adapter file: No such
    """
    record, tensors = _read(path)
    for key, expected in _identity(adapters).items():
        if (saved := record.get(key)) != expected:
            raise InputError(f"{str(path)!r} does not fit this model: {describe_difference(key, saved, expected)}")
    if (saved := record.get("facts")) and facts and saved != facts:
        raise InputError(f"{str(path)!r} does not fit this model: {describe_difference('facts', saved, dict(facts))}")
    _check(path, record, tensors)
    current = adapters.state_dict()
    if current.keys() == tensors.keys():  # else loading tells which are missing
        refuse_other_dtypes(repr(str(path)), current, tensors)
        _check_finite(path, tensors)
    adapters.load_state_dict(tensors)


def read_adapters(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file that `save_adapters` wrote, without a model.

    Raises:
        InputError: the file is missing, truncated or damaged.
    """
    record, tensors = _read(path)
    _check(path, record, tensors)
    _check_finite(path, tensors)
    return record, tensors


def read_description(path: Path | str) -> dict[str, Any]:
    """The description alone, which takes no time. Raises InputError where the file is missing or truncated."""
    return _read(path, tensors=False)[0]


def _read(path: Path | str, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    refuse_endless(path)
    try:
        with safe_open(path, framework="pt") as file:
            record = json_object((file.metadata() or {}).get(METADATA_KEY, "{}"), f"the description in {str(path)!r}")
            names = list(file.keys()) if tensors else []
            return record, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read as an adapter file: {error}") from error


def _check(path: Path | str, record: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    if record.get("tensors_sha256") != sha256(tensors):
        raise InputError(f"{str(path)!r} is damaged: its tensors are not those that were saved")


def _check_finite(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    if wrong := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise InputError(f"{str(path)!r} holds values of {wrong[0]!r} that are not finite")


def _identity(adapters: AdapterSet) -> dict[str, object]:
    """What a file and a model must have in common; the base weights last, since the others explain more."""
    description = adapters.description()
    parts = {key: description[key] for key in ("method", "hyperparameters", "sites")}
    return parts | {"base_sha256": adapters.base_sha256()}


def _named(value: object) -> str:
    """A value for a line; of a class of kravl its name alone."""
    text = str(value)[:SHOWN]
    return text.rpartition(".")[2] if text.startswith("kravl.") else text


def describe_difference(key: str, saved: object, expected: object) -> str:
    """What differs between two descriptions, in one line."""
    if not isinstance(saved, dict) or not isinstance(expected, dict):
        return f"its {key} is {_named(saved)}, the model's is {_named(expected)}"
    names = sorted(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name))
    values = [{name: part.get(name) for name in names[:3]} for part in (saved, expected)]
    return f"its {key} differ in {len(names)}: {str(values[0])[:SHOWN]}, the model's are {str(values[1])[:SHOWN]}"
