"""The folder of a run and what it keeps: config.yaml, metrics.json (repeatable), cost.json (measured).

A run repeats bit for bit on one kind of processor with as many threads.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kravl.runtime.errors import InputError, nearest, require_name
from kravl.runtime.files import read_yaml, sweep, write_whole
from kravl.runtime.lock import Lock

log = logging.getLogger(__name__)
PACKAGES = ("kravl", "torch", "torchvision", "open_clip_torch", "timm", "pytorch-lightning", "torchmetrics")
LOCKS = {".lock", ".owner"}
ZERO_SHOT = "zero-shot"  # the method of a model that nothing was trained of
# where and whether a run happens, not what it computes
WHERE = ("runs", "study", "objective", "overwrite", "resume", "force", "tracking", "data_root", "cache_root")
# how it is computed: on what, how fast, how often saved; nothing of it changes a number beyond the rounding of a device
HOW = (
    "checkpointing",
    "checkpoint_every",
    "loading.eval_batch_size",
    "loading.num_workers",
    "trainer.accelerator",
    "trainer.barebones",
    "trainer.benchmark",
    "trainer.detect_anomaly",
    "trainer.deterministic",
    "trainer.enable_autolog_hparams",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.inference_mode",
    "trainer.log_every_n_steps",
    "trainer.model_registry",
    "trainer.profiler",
    "trainer.strategy",
)


@dataclass(frozen=True)
class RunFolder:
    """``path`` of one run; ``finished`` if its metrics.json is there."""

    path: Path

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter.safetensors"

    @property
    def trained(self) -> Path:
        """What is known of a training that has ended, while its evaluation has not."""
        return self.checkpoints / "trained.json"

    def metrics(self) -> dict[str, Any]:
        """The record of a finished run."""
        return json.loads((self.path / "metrics.json").read_text())

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """``values`` as ``name``.json, whole or not at all."""
        write_whole(self.path / f"{name}.json", json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an unresolved config that decides the results; names neither this machine nor its folders."""
    return {key: without_home(value) for key, value in config.items() if key not in WHERE}


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `identity` that numbers depend on: commands that agree in it are one run, whatever computes it.

    Of ``trainer.devices`` and ``trainer.num_nodes`` that is how many processes share a step, which multiply its batch;
    of a class of kravl, its name without the module that it lies in, which may be another in another release.
    """
    kept = {key: _without_modules(value) for key, value in identity(config).items()}
    for name in HOW:
        section, _, key = name.rpartition(".")
        holder = kept.get(section) if section else kept
        if isinstance(holder, dict):
            holder.pop(key, None)
    if isinstance(trainer := kept.get("trainer"), dict) and {"devices", "num_nodes"} & trainer.keys():
        devices, nodes = _count(trainer.pop("devices", 1)), _count(trainer.pop("num_nodes", 1))
        trainer["devices"] = devices * nodes if isinstance(devices, int) and isinstance(nodes, int) else devices
    return kept


def _without_modules(tree: Any) -> Any:
    """``tree`` with ``kravl.Class`` in place of ``kravl.package.module.Class`` in each ``_target_``."""
    if isinstance(tree, list):
        return [_without_modules(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    plain = {key: _without_modules(value) for key, value in tree.items()}
    if str(target := plain.get("_target_")).startswith("kravl."):
        plain["_target_"] = f"kravl.{str(target).rpartition('.')[2]}"
    return plain


def _count(devices: Any) -> Any:
    """How many devices Lightning takes: a number, a list of their numbers, or either as text; the rest as it is."""
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([number for number in devices.split(",") if number.strip()])
    return int(devices) if isinstance(devices, str) and devices.strip().isdecimal() else devices


def without_home(tree: Any) -> Any:
    """``tree`` with the path of the user's home, which has a name in it, as ``${oc.env:HOME}``."""
    home = os.environ.get("HOME", "").rstrip("/")
    if isinstance(tree, Mapping):
        return {key: without_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_home(value) for value in tree]
    if not home or not isinstance(tree, str):
        return tree
    return re.sub(rf"{re.escape(home)}(?=/|$)", "${oc.env:HOME}", tree)


def settings_sha256(config: Mapping[str, Any]) -> str:
    """Hex digest of what `deciding` leaves of an unresolved config."""
    return hashlib.sha256(json.dumps(deciding(config), sort_keys=True).encode()).hexdigest()


def place_of(name: str, seed: int, config: Mapping[str, Any]) -> Path:
    """``<name>/seed<seed>-<hash of what decides the results>``, the folder of a run below the folder of runs.

    Raises:
        InputError: ``name`` is no plain folder name.
    """
    require_name("name", name)
    return Path(name) / f"seed{seed}-{settings_sha256(config)[:8]}"


def folder_of(runs: str, name: str, seed: int, config: Mapping[str, Any]) -> Path:
    """Where the run of an unresolved config is or will be: `place_of` it below ``runs``.

    Kravl 0.1.0 counted in how a run is computed. One that it has begun under another hash keeps its folder.

    Raises:
        InputError: ``name`` is no plain folder name.
    """
    path = Path(runs) / place_of(name, seed, config)
    if path.exists():
        return path
    decides = deciding(config)
    for other in sorted(path.parent.glob(f"seed{seed}-*/config.yaml")):
        try:
            if deciding(settings_in(other.parent)) == decides:
                return other.parent
        except InputError:  # not a run's config: its folder is not this run's either
            continue
    return path


def settings_in(folder: Path) -> dict[str, Any]:
    """The config that the run in ``folder`` was started with, its interpolations as they are written.

    Raises:
        InputError: there is none, or it is no mapping.
    """
    settings = OmegaConf.to_container(read_yaml(folder / "config.yaml"), resolve=False)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


@contextmanager
def open_run(path: Path, overwrite: bool, first: bool = True) -> Iterator[RunFolder]:
    """Within the block this process owns the run folder ``path``, made if it is not there.

    Of several processes of one run the ``first`` alone owns the folder, and writes to it.

    Raises:
        InputError: a folder that cannot be written, or one that another process is writing.
    """
    if not first:
        yield RunFolder(path)
        return
    try:
        lock = _own(path)
        sweep(path)
        if overwrite:
            for old in path.iterdir():
                if old.name not in LOCKS:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be written: {error.strerror}; pass runs=/a/folder") from error
    try:
        yield RunFolder(path)
    finally:
        if {p.name for p in path.iterdir()} <= LOCKS:  # nothing was begun: a user's mistake leaves no folder
            shutil.rmtree(path)
        lock.release()


def _own(path: Path) -> Lock:
    """The lock of ``path``, made if it is not there: another process may remove it, empty, between the two."""
    for _ in range(100):
        path.mkdir(parents=True, exist_ok=True)
        try:
            return Lock(path)
        except FileNotFoundError:
            continue
    raise InputError(f"the run folder {path} is removed again and again by another process")


def find_run(run: str) -> RunFolder:
    """The finished run at the path ``run``, which may leave out the hash at its end.

    Raises:
        InputError: no such run, several of them, or one that is not finished.
    """
    path = Path(run)
    found = [path] if (path / "config.yaml").is_file() else sorted(path.parent.glob(f"{path.name}-*"))
    if not found:
        others = [str(p.parent) for p in path.parent.parent.glob("*/*/metrics.json")]
        near = f"; the nearest are {nearest(run, others)}" if others else ""
        raise InputError(f"no run {run!r}{near}")
    if len(found) > 1:
        raise InputError(f"{run!r} may be any of {[p.name for p in found]}; name one")
    folder = RunFolder(found[0])
    if not folder.finished:
        raise InputError(f"the run {found[0]} is not finished; give its train command again to go on")
    return folder


def provenance() -> dict[str, Any]:
    """Package versions and the commit of the checkout that kravl runs from (None outside of one)."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "git_commit": _git_commit()}


def _git_commit() -> str | None:
    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no", ".") else commit


ZERO_SHOT = "zero-shot"
