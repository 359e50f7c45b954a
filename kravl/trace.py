"""The compact file of a run's spectra: every quantity by step and site, and the singular values at the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, write_whole

SPECTRA_FILE = "spectra.safetensors"
VALUES = "singular_values."
Statistics = Mapping[str, Mapping[str, float]]  # site -> quantity -> value


@dataclass
class Trace:
    """``path`` and what was recorded: step -> site -> quantity -> value, and site -> singular values at the end."""

    path: Path
    steps: dict[int, Statistics] = field(default_factory=dict)
    singular_values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def end(self) -> Statistics:
        """The quantities of the last step; empty if nothing was recorded."""
        return self.steps[max(self.steps)] if self.steps else {}

    def begin(self, step: int) -> None:
        """Go on from ``step``: what an interrupted run has recorded up to there is kept, what came later is not."""
        if step and self.path.exists():
            earlier = read_trace(self.path)
            self.steps = {at: values for at, values in earlier.steps.items() if at <= step}

    def add(self, step: int, statistics: Statistics) -> None:
        """Record ``step`` and write the file, whole or not at all."""
        self.steps[step] = statistics
        self._write()

    def finish(self, singular_values: Mapping[str, Tensor]) -> None:
        """Record the singular values at the end."""
        self.singular_values = dict(singular_values)
        self._write()

    def _write(self) -> None:
        sites = list(self.end)
        names = list(dict.fromkeys(name for values in self.end.values() for name in values))
        rows = [[[at[site][name] for name in names] for site in sites] for at in self.steps.values()]
        tensors = {"steps": torch.tensor(list(self.steps)), "quantities": torch.tensor(rows, dtype=torch.float32)}
        tensors |= {VALUES + site: values.float().contiguous() for site, values in self.singular_values.items()}
        # one entry, because safetensors writes several in random order
        content = save(tensors, {"kravl": json.dumps({"sites": sites, "quantities": names})})
        write_whole(self.path, content)


def read_trace(path: Path) -> Trace:
    """What `Trace` wrote. Raises InputError for a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            head = json_object((file.metadata() or {}).get("kravl", "{}"), f"the description in {str(path)!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read as the spectra of a run: {error}") from error
    sites, names = head.get("sites"), head.get("quantities")
    at, rows = tensors.get("steps"), tensors.get("quantities")
    if not (_texts(sites) and _texts(names)) or at is None or rows is None or at.is_floating_point() or at.dim() != 1:
        raise InputError(f"{str(path)!r} is not the spectra of a run: sites, quantities or steps are missing")
    assert isinstance(sites, list)
    assert isinstance(names, list)
    if rows.shape != (shape := (len(at), len(sites), len(names))) and rows.numel():
        raise InputError(f"{str(path)!r} is damaged: it has quantities {tuple(rows.shape)}, not {shape}")
    steps: dict[int, Statistics] = {
        step: {site: dict(zip(names, values, strict=True)) for site, values in zip(sites, of_sites, strict=True)}
        for step, of_sites in zip(at.tolist(), rows.tolist(), strict=bool(rows.numel()))
    }
    values = {name.removeprefix(VALUES): t.double() for name, t in tensors.items() if name.startswith(VALUES)}
    return Trace(path, steps, values)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
