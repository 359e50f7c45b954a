"""Files that run code, or grow, where they are loaded as pickles; each would leave a marker file."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save

Content = bytes


class Touch:
    """Unpickled, it makes the file ``marker``."""

    def __init__(self, marker: Path, how: str = "touch") -> None:
        self.marker, self.how = marker, how

    def __reduce__(self) -> tuple[Any, ...]:
        statement = f"open({str(self.marker)!r}, 'w').close()"
        return {
            "touch": (Path.touch, (self.marker,)),
            "exec": (exec, (statement,)),
            "eval": (eval, (statement,)),
            "getattr": (os.system, (f"touch '{self.marker}'",)),
            "open": (open, (str(self.marker), "w")),
        }[self.how]


def saved(content: object, **how: Any) -> Content:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def hand_written(marker: Path) -> Content:
    """Protocol 0: ``pkgutil.resolve_name("os:system")(...)``, which name-based scanners pass."""
    return f"cpkgutil\nresolve_name\n(Vos:system\ntR(Vtouch '{marker}'\ntR.".encode()


def repacked(content: Content, compression: int = zipfile.ZIP_STORED, pickled: Content | None = None) -> Content:
    """A torch file with its pickle replaced, or its members compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for info in old.infolist():
            hostile = pickled is not None and info.filename.endswith("data.pkl")
            new.writestr(info.filename, pickled if hostile else old.read(info))
    return out.getvalue()


def tensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> Content:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def legacy_tar(marker: Path) -> Content:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            data = hand_written(marker)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def objects(marker: Path, compressed: bool) -> Content:
    out = io.BytesIO()
    array = np.array([Touch(marker)], dtype=object)
    np.savez(out, w=array) if compressed else np.save(out, array, allow_pickle=True)
    return out.getvalue()


def scripted(marker: Path) -> Content:
    """An archive of TorchScript, which torch.load would hand to another loader."""
    out = io.BytesIO(saved({"w": torch.ones(2)}))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("archive/constants.pkl", hand_written(marker))
        archive.writestr("archive/code/__torch__.py", f"import os\nos.system({f'touch {marker}'!r})\n")
    return out.getvalue()


WHOLE = {"w": torch.ones(2)}
SHAPES = {"a": entry(0, 8), "b": entry(8, 16)}
# name: ending, and the content for a marker
PAYLOADS: dict[str, tuple[str, Callable[[Path], Content]]] = {
    "reduce": (".pt", lambda m: saved({"state_dict": Touch(m)})),
    "reduce, old format": (".pth", lambda m: saved({"w": Touch(m)}, _use_new_zipfile_serialization=False)),
    "plain pickle": (".bin", lambda m: pickle.dumps(Touch(m))),
    "exec": (".ckpt", lambda m: saved({"state_dict": {"w": Touch(m, "exec")}})),
    "eval": (".pt", lambda m: pickle.dumps({"w": Touch(m, "eval")}, protocol=5)),
    "os.system": (".bin", lambda m: saved(Touch(m, "getattr"))),
    "a file opened for writing": (".pth", lambda m: saved({"w": Touch(m, "open")})),
    "resolve_name": (".pt", hand_written),
    "7z": (".bin", lambda m: b"7z\xbc\xaf\x27\x1c\x00\x04" + hand_written(m)),
    "7z after a pickle": (
        ".bin",
        lambda m: pickle.dumps(WHOLE["w"].tolist()) + b"7z\xbc\xaf\x27\x1c" + hand_written(m),
    ),
    "tar": (".pt", legacy_tar),
    "gzip magic": (".pt", lambda m: b"\x1f\x8b\x08\x00" + hand_written(m)),
    "hyper-parameters": (".ckpt", lambda m: saved({"hyper_parameters": {"_instantiator": "os.system"}, "x": Touch(m)})),
    "_instantiator alone": (
        ".ckpt",
        lambda m: saved({"hyper_parameters": {"_instantiator": f"os.system:touch '{m}'"}}),
    ),
    "OmegaConf": (".ckpt", lambda m: saved({"state_dict": WHOLE, "cfg": OmegaConf.create({"a": "${oc.env:HOME}"})})),
    "namespace": (".pt", lambda m: saved({"state_dict": WHOLE, "args": SimpleNamespace(x=Touch(m))})),
    "a module": (".pt", lambda m: saved(torch.nn.Linear(2, 2))),
    "data.pkl replaced": (".pt", lambda m: repacked(saved(WHOLE), pickled=hand_written(m))),
    "TorchScript": (".pt", scripted),
    "compressed members": (".pt", lambda m: repacked(saved({"w": torch.zeros(2**20)}), zipfile.ZIP_DEFLATED)),
    "object array": (".npy", lambda m: objects(m, compressed=False)),
    "object arrays": (".npz", lambda m: objects(m, compressed=True)),
    "pickle with another ending": (".safetensors", lambda m: saved({"w": Touch(m)})),
    "huge header": (".safetensors", lambda m: tensors(b"{}", length=2**62)),
    "deep header": (".safetensors", lambda m: tensors(b'{"a":' + b"[" * 100_000)),
    "overlap": (".safetensors", lambda m: tensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12))),
    "holes": (
        ".safetensors",
        lambda m: tensors({"a": entry(0, 8), "b": entry(12, 20)}, hand_written(m)[:20].ljust(20)),
    ),
    "wrong size": (".safetensors", lambda m: tensors({"a": entry(0, 8, shape=(2**40,))}, bytes(8))),
    "wrong dtype": (".safetensors", lambda m: tensors({"a": entry(0, 8, dtype="PYOBJ")}, bytes(8))),
    "no tensor": (
        ".safetensors",
        lambda m: save({}, {"kravl": json.dumps({"path": "../../out", "scale": float("nan")})}),
    ),
}
