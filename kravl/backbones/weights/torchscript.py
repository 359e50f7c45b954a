"""The tensors of a TorchScript archive, such as OpenAI's ViT-B-32.pt, without running what else is in it.

``torch.jit.load`` compiles the archive's code and runs its ``__setstate__``. Here its table of contents is unpickled by
a reader that can build nothing but tensors and records of them; its code is never opened.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")


class Record:
    """A module of the archive: its attributes by name."""

    attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Unpickles a TorchScript archive's ``data.pkl``; any other name than those of tensors and modules is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in LISTS:
            return _as_given
        if module.split(".")[0] == "__torch__":
            return Record
        raise pickle.UnpicklingError(f"{module[:80]}.{name[:80]} is no part of a model")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise pickle.UnpicklingError("a tensor of no known type")
        content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip file is an archive of TorchScript, which torch recognises by the same member."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of the archive's module, by name.

    Raises:
        UnpicklingError: the archive holds something else.
        RuntimeError, ValueError, KeyError, TypeError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        module = _Reader(archive, root).load()
    if not isinstance(module, Record):
        raise pickle.UnpicklingError(f"it holds a {type(module).__name__}, not a module")
    return dict(_tensors(module, "", []))


def _tensors(module: Record, prefix: str, within: Sequence[Record]) -> Iterator[tuple[str, Tensor]]:
    if any(module is outer for outer in within):
        raise pickle.UnpicklingError("a module is part of itself")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Record):
            yield from _tensors(value, f"{prefix}{name}.", [*within, module])


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _as_given(value: Any, *_: Any) -> Any:
    return value
