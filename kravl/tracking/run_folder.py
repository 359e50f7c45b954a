"""The folder of a run and what it keeps: config.yaml, metrics.json (repeatable), cost.json (measured).

A run repeats bit for bit on one kind of processor with as many threads.
"""

import importlib.metadata
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, nearest, some_of
from kravl.runtime.files import PACKAGE, remove_leftovers, write_atomic, write_yaml
from kravl.runtime.lock import Lock
from kravl.tracking.settings import (
    Settings,
    deciding_settings,
    place_of,
    recorded_settings,
    settings_diff,
    settings_in,
    without_home,
)

log = logging.getLogger(__name__)
PACKAGES = ("kravl", "torch", "torchvision", "open_clip_torch", "timm", "pytorch-lightning", "torchmetrics")
LOCKS = {".lock", ".owner"}
LISTED = 12  # settings that differ
ZERO_SHOT = "zero-shot"  # the method of a model that nothing was trained of


@dataclass(frozen=True)
class RunFolder:
    """``path`` of one run; ``finished`` if its metrics.json is there.

    Args:
        settings: that the run is started with, as they are written.
        owned: whether this process writes to the folder.
    """

    path: Path
    settings: Settings = field(default_factory=dict, repr=False)
    owned: bool = False

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

    @property
    def recorded_settings(self) -> dict[str, Any]:
        return recorded_settings(self.settings)

    def begin(self) -> None:
        """Keep the settings, as config.yaml; from here on the folder is that of a run."""
        if self.owned:
            write_yaml(self.path / "config.yaml", without_home(self.settings))

    def metrics(self) -> dict[str, Any]:
        """The record of a finished run."""
        return json.loads((self.path / "metrics.json").read_text())

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """``values`` as ``name``.json, whole or not at all."""
        write_atomic(self.path / f"{name}.json", json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n")


def folder_of(runs: str, name: str, seed: int, settings: Settings) -> Path:
    """Where the run with these settings is or will be: `place_of` it below ``runs``.

    Kravl 0.1.0 counted in how a run is computed. One that it has begun under another hash keeps its folder.

    Raises:
        InputError: ``name`` is no plain folder name.
    """
    path = Path(runs) / place_of(name, seed, settings)
    if path.exists():
        return path
    decides = deciding_settings(settings)
    for other in sorted(path.parent.glob(f"seed{seed}-*/config.yaml")):
        try:
            if deciding_settings(settings_in(other.parent)) == decides:
                return other.parent
        except InputError:  # not a run's config: its folder is not this run's either
            continue
    return path


def resumable_folder(run: str, settings: Settings, force: bool) -> Path:
    """The folder ``run``, which was started with these ``settings``; ``force`` resumes it with them in any case.

    Raises:
        InputError: no run, or one that was started with other settings, each of them named.
    """
    path = Path(run)
    if not (file := path / "config.yaml").is_file():
        raise InputError(f"resume={path}: there is no run in this folder, {file} is missing")
    differences = settings_diff(settings_in(path), settings)
    if differences and not force:
        raise InputError(
            f"{path} was started with other settings: {some_of(differences, LISTED, '; ')}. Without resume= this is a "
            "run of its own; force=true resumes with the new settings"
        )
    for line in differences:
        log.warning("resuming with %s", line)
    return path


def warn_unfinished(folder: RunFolder) -> None:
    """Say which unfinished runs of the same name and seed were started with other settings: a typo, or on purpose."""
    path = folder.path
    for other in sorted(path.parent.glob(f"{path.name.partition('-')[0]}-*")):
        unfinished = RunFolder(other)
        if other == path or unfinished.finished or not any(unfinished.checkpoints.glob("*.ckpt")):
            continue
        try:
            listed = some_of(settings_diff(settings_in(other), folder.settings), LISTED, "; ")
        except InputError:
            continue
        log.info("%s is unfinished and another run: %s (resume=%s force=true resumes it)", other, listed, other)


@contextmanager
def open_run(path: Path, settings: Settings, overwrite: bool, first: bool = True) -> Iterator[RunFolder]:
    """Within the block this process owns the run folder ``path``, made if it is not there.

    Of several processes of one run the ``first`` alone owns the folder, and writes to it.

    Raises:
        InputError: a folder that cannot be written, or one that another process is writing.
    """
    if not first:
        yield RunFolder(path, settings)
        return
    try:
        lock = _own(path)
        remove_leftovers(path)
        if overwrite:
            for old in path.iterdir():
                if old.name not in LOCKS:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be written: {error.strerror}; pass runs=/a/folder") from error
    try:
        yield RunFolder(path, settings, owned=True)
    finally:
        if {p.name for p in path.iterdir()} <= LOCKS:  # nothing was begun: a user's mistake leaves no folder
            shutil.rmtree(path)
        lock.release()


def _own(path: Path) -> Lock:
    """The lock of ``path``, made if it is not there: another process may remove it, empty, before it is locked."""
    for _ in range(100):
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
        raise InputError(f"the run {found[0]} is not finished; run its command again to resume")
    return folder


def provenance() -> dict[str, Any]:
    """Package versions and the commit of the checkout that kravl runs from (None outside of one)."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "git_commit": _git_commit()}


def _git_commit() -> str | None:
    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(PACKAGE), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no", ".") else commit


ZERO_SHOT = "zero-shot"
