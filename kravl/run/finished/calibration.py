"""A run's temperature, fitted on validation images: calibration.json in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kravl.adapters.injection.serialization import read_description
from kravl.evaluation.temperature import HIGHEST, LOWEST
from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, read_text
from kravl.tracking.provenance import provenance
from kravl.tracking.run_folder import RunFolder

NAME = "calibration"  # .json
MOST = 1e12  # of any of its numbers


@dataclass(frozen=True)
class Calibration:
    """What the logits of the adapted model, and no other point of its WiSE-FT curve, are divided by.

    Args:
        images: how many it was fitted on.
        images_sha256: of their names and labels in order.
        nll: in nats, of those images, before and after.
        ece: likewise.
        adapter: digest of what the run trained.
        about: what else a reader may want to know.
    """

    temperature: float
    images: int
    images_sha256: str
    nll: tuple[float, float]
    ece: tuple[float, float]
    adapter: str
    about: Mapping[str, Any]

    def describe(self) -> str:
        """One line for a log or a card."""
        nll, ece = (f"{before:.4f} -> {after:.4f}" for before, after in (self.nll, self.ece))
        return f"temperature {self.temperature:.4f}, fitted on {self.images} validation images: NLL {nll}, ECE {ece}"

    def write(self, folder: RunFolder) -> None:
        """To calibration.json in ``folder``, with versions and commit."""
        both = {name: dict(zip(("before", "after"), getattr(self, name), strict=True)) for name in ("nll", "ece")}
        plain = {key: getattr(self, key) for key in ("temperature", "images", "images_sha256", "adapter")}
        folder.write(NAME, {"schema": 1, **plain, **both, "about": dict(self.about), **provenance()})


def adapter_sha256(folder: RunFolder) -> str:
    """Digest of what the run in ``folder`` trained."""
    return str(read_description(folder.adapter).get("tensors_sha256"))


def read_calibration(folder: RunFolder) -> Calibration | None:
    """What is in calibration.json of ``folder``; None without one.

    Raises:
        InputError: the file is not what `Calibration.write` writes, or of what the run trained before.
    """
    path = folder.path / f"{NAME}.json"
    if not path.is_file():
        return None
    again = f"kravl calibrate {folder.path} --force writes it anew"
    try:
        content = json_object(read_text(path), str(path))
    except InputError as error:
        raise InputError(f"{error}; {again}") from error
    about = content.get("about")
    temperature, images = _numbers(content, "temperature", "images")
    nll, ece = (_numbers(content.get(name), "before", "after") for name in ("nll", "ece"))
    digests = [content.get(name) for name in ("images_sha256", "adapter")]
    numbers = LOWEST <= temperature <= HIGHEST and images >= 1 and images.is_integer() and min(*nll, *ece) >= 0
    if not numbers or not all(isinstance(digest, str) for digest in digests):
        raise InputError(f"{path} is not what kravl writes; {again}")
    if digests[1] != adapter_sha256(folder):
        raise InputError(f"{path} is of another adapter; {again}")
    images_sha256, adapter = map(str, digests)
    known = about if isinstance(about, dict) else {}
    return Calibration(temperature, int(images), images_sha256, (nll[0], nll[1]), (ece[0], ece[1]), adapter, known)


def _numbers(record: Any, *names: str) -> list[float]:
    """Each positive number of ``record``, or zero; -1 in place of anything else."""
    values = [record.get(name) if isinstance(record, dict) else None for name in names]
    known = [isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST for value in values]
    return [float(value) if is_known else -1.0 for value, is_known in zip(values, known, strict=True)]  # type: ignore[arg-type]
