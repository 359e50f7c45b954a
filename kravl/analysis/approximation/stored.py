"""Targets from files: pretrained weights, and what full fine-tuning added to them."""

from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kravl.analysis.approximation.target import Shape, Target
from kravl.runtime.errors import InputError, nearest
from kravl.runtime.files import PACKAGE, json_object, refuse_endless
from kravl.tracking.run_folder import find_run

SHIPPED = PACKAGE / "backbones/kravl_tiny/weights.safetensors"
FULL = "kravl.adapters.full.Full"


class Pretrained(Target):
    """The leading rows and columns of the matrix ``tensor`` in a safetensors file, whatever the seed.

    ``path`` is the file, or "kravl" for kravl-tiny's weights, which ship with the package.
    """

    def __init__(self, path: str, tensor: str) -> None:
        self.source: Path = SHIPPED if path == "kravl" else Path(path)
        self.tensor = tensor

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        return _cut(_read(self.source, self.tensor), shape, f"{self.tensor} of {self.source}")


class Delta(Target):
    """ΔW at ``site`` of a finished run with ``adapter=full``; "*" in it matches any characters.

    The folder ``run`` may omit the hash at its end.

    Its leading rows and columns are read from the run's adapter file, whatever the seed.

    Raises:
        InputError: no run is named, or none is there; when drawn, the run is of another method, or has no such site.
    """

    def __init__(self, run: str | None, site: str) -> None:
        if not run:
            raise InputError("a fine-tuning update needs a run: variants.delta.run=FOLDER of a run with adapter=full")
        given = Path(run) / "adapter.safetensors"
        self.source: Path = given if given.is_file() else find_run(run).adapter
        self.site = site

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        return _cut(_read(self.source, f"{self.site}.delta", FULL), shape, f"{self.site} of {self.source.parent}")


def _read(path: Path, pattern: str, method: str | None = None) -> Tensor:
    refuse_endless(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = json_object((file.metadata() or {}).get("kravl", "{}"), f"the description in {path}").get("method")
            if method and stored != method:
                raise InputError(f"{path} is of {stored}; only {method} stores its update as a matrix")
            matrices = [name for name in sorted(file.keys()) if len(file.get_slice(name).get_shape()) == 2]
            matching = [name for name in matrices if fnmatchcase(name, pattern)]
            if not matching:
                raise InputError(f"no matrix {pattern!r} in {path}; the nearest are {nearest(pattern, matrices)}")
            return file.get_tensor(matching[0]).double()
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a safetensors file: {error}") from error


def _cut(matrix: Tensor, shape: Shape, what: str) -> Tensor:
    if matrix.shape[0] < shape[0] or matrix.shape[1] < shape[1]:
        raise InputError(f"{what} is {tuple(matrix.shape)}, smaller than shape={list(shape)}; give a smaller shape")
    return matrix[: shape[0], : shape[1]].clone()
