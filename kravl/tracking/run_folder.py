"""The folder of a run and its files: config.yaml, metrics.json (reproducible), cost.json (measured).

A run is reproducible bit for bit on one kind of processor with the same number of threads.
"""

import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kravl.runtime.errors import LONGEST, InputError, nearest, some_of
from kravl.runtime.files import json_object, read_text, remove_leftovers, write_atomic
from kravl.runtime.lock import Lock
from kravl.runtime.yaml_files import write_yaml
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
LOCKS = {".lock", ".owner"}
LOG = "log.txt"  # what a run of a study prints
LONGEST_NAME = 255  # bytes
LONGEST_PATH = 3800  # bytes; Linux takes 4,095 with the names of files below it
LISTED = 12  # differing settings that a message shows
DEEPEST = 3  # folders below that of all runs: those of a study are in one of their own
RUNS = "runs"  # where they are kept, unless ``runs=`` says otherwise
ZERO_SHOT = "zero-shot"  # the method of a backbone without training


@dataclass(frozen=True)
class RunFolder:
    """``path`` of one run; ``finished`` if it holds a metrics.json.

    Args:
        settings: of the config that the run is started with, unresolved.
        owned: whether this process may write to the folder.
    """

    path: Path
    settings: Settings = field(default_factory=dict, repr=False)
    owned: bool = False

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def shortened(self) -> list[str]:
        """Why a finished run is less than its settings say, see `kravl.run.results.shortened`; empty of a whole one."""
        reasons = (self.metrics().get("shortened") or []) if self.finished else []
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else ["it says so"]

    @property
    def done(self) -> bool:
        """Whether it is finished, whole, and each relative path of its settings leads here where it led then."""
        if not self.finished or self.shortened:
            return False
        paths: Mapping[str, tuple[str, str]] = self.inputs.get("paths", {})
        return all(place_sha256(Path(given)) == led_to for given, led_to in paths.values())

    @property
    def inputs(self) -> dict[str, Any]:
        """What the result depends on besides the settings; empty for a run of a release that did not keep it.

        Raises:
            InputError: the file is not what `begin` writes.
        """
        path = self.path / "inputs.json"
        if not path.is_file():
            return {}
        record = json_object(read_text(path), str(path))
        paths = record.get("paths", {})
        pairs = list(paths.values()) if isinstance(paths, dict) else [None]
        if not all(map(_is_place, pairs)):
            raise InputError(f"{path} is not what kravl writes; overwrite=true starts the run again")
        return record

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("step=*.ckpt"))

    @property
    def begun(self) -> bool:
        """Whether something has been trained: steps that are kept, or all of them."""
        return self.finished or self.trained.is_file() or self.has_checkpoint

    @property
    def adapter(self) -> Path:
        return self.path / "adapter.safetensors"

    @property
    def trained(self) -> Path:
        """What is recorded when training has ended and evaluation has not."""
        return self.checkpoints / "trained.json"

    @property
    def recorded_settings(self) -> dict[str, Any]:
        return recorded_settings(self.settings)

    def begin(self, inputs: Mapping[str, Any]) -> None:
        """Write config.yaml, which makes this the folder of a run, and what else its result depends on."""
        if self.owned:
            self.write("inputs", inputs)
            write_yaml(self.path / "config.yaml", without_home(self.settings))

    def restart(self) -> None:
        """Remove everything but the lock and the log, which may be written to, so that the run begins anew."""
        for old in self.path.iterdir() if self.owned else ():
            if old.name not in LOCKS | {LOG}:
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def metrics(self) -> dict[str, Any]:
        """The record of a finished run. Raises InputError where the file is no longer one."""
        return json_object(read_text(self.path / "metrics.json"), str(self.path / "metrics.json"))

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write ``values`` to ``name``.json atomically."""
        write_atomic(self.path / f"{name}.json", json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _is_place(pair: object) -> bool:
    """Whether this is a path, which the system takes, and the digest of where it led."""
    if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
        return False
    try:
        place_sha256(Path(pair[0]))
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False
    return True


def place_sha256(path: Path) -> str:
    """A digest of the place that ``path`` leads to: a record tells places apart without naming them."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def folder_of(runs: str, name: str, seed: int, settings: Settings) -> Path:
    """Where the run with these settings is or will be: `place_of` below ``runs``.

    The hashes of kravl 0.1.0 covered how a run is computed too; a run that it began keeps its folder.

    Raises:
        InputError: ``name`` is not a plain folder name, or too long.
    """
    path = Path(runs) / place_of(name, seed, settings)
    require_short_names(path)
    if path.exists():
        return path
    decides = deciding_settings(settings)
    for other in sorted(path.parent.glob(f"seed{seed}-*/config.yaml")):
        try:
            if deciding_settings(settings_in(other.parent)) == decides:
                return other.parent
        except InputError:  # not a run's config, so not this run's folder
            continue
    return path


def require_short_names(path: Path) -> None:
    """Raise InputError where a folder's name, or all of the path, is longer than file systems take."""
    for what, text, most in (*(("name", part, LONGEST_NAME) for part in path.parts), ("path", str(path), LONGEST_PATH)):
        if (size := len(os.fsencode(text))) > most:
            raise InputError(f"the folder {text[:80]}... has a {what} of {size} bytes; at most {most}")


def resumable_folder(run: str, settings: Settings, force: bool) -> Path:
    """The folder ``run``, if it was started with these ``settings``; ``force`` accepts others.

    Raises:
        InputError: no run, or one that was started with other settings, which are listed.
    """
    path = Path(run)
    if not (file := path / "config.yaml").is_file():
        raise InputError(f"resume={path}: no run in this folder, {file} is missing")
    differences = settings_diff(settings_in(path), settings)
    if differences and not force:
        raise InputError(
            f"{path} was started with other settings: {some_of(differences, LISTED, '; ')}. Leave out resume= "
            "to start a new run; force=true resumes with the new settings"
        )
    for line in differences:
        log.warning("resuming with %s", line)
    return path


def warn_unfinished(folder: RunFolder) -> None:
    """Log unfinished runs of the same name and seed with other settings, which may differ by a typo."""
    path = folder.path
    for other in sorted(path.parent.glob(f"{path.name.partition('-')[0]}-*")):
        unfinished = RunFolder(other)
        if other == path or unfinished.finished or not any(unfinished.checkpoints.glob("*.ckpt")):
            continue
        try:
            listed = some_of(settings_diff(settings_in(other), folder.settings), LISTED, "; ")
        except InputError:
            continue
        log.info("%s is unfinished, with other settings: %s (resume=%s force=true resumes it)", other, listed, other)


@contextmanager
def open_run(path: Path, settings: Settings, overwrite: bool, first: bool = True) -> Iterator[RunFolder]:
    """Own the run folder ``path``, created if missing, within the block.

    Of several processes of one run only the ``first`` owns the folder and writes to it. A run that is refused before
    anything of it was trained leaves no folder.

    Raises:
        InputError: the folder cannot be written, or another process owns it.
    """
    if not first:
        yield RunFolder(path, settings)
        return
    folder = RunFolder(path, settings, owned=True)
    try:
        lock = _lock(path)
        remove_leftovers(path)
        if overwrite:
            folder.restart()
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be written: {error.strerror}; pass runs=/a/folder") from error
    try:
        yield folder
    except InputError:
        if not (folder.finished or folder.has_checkpoint or folder.adapter.is_file()):
            folder.restart()  # refused before anything was trained
        raise
    finally:
        if {p.name for p in path.iterdir()} <= LOCKS:  # no run began: a user's mistake leaves no folder
            shutil.rmtree(path)
            with suppress(OSError):  # it holds other runs, or another process begins one
                path.parent.rmdir()
        lock.release()


def _lock(path: Path) -> Lock:
    """The lock of ``path``, created if missing: another process may remove empty folders before it is locked."""
    for _ in range(100):
        try:
            return Lock(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)  # raises where it cannot be made, as below /proc
    raise InputError(f"the run folder {path} keeps being removed by another process")


def find_run(run: str) -> RunFolder:
    """The finished run at the path ``run``, which may omit the hash at its end.

    Raises:
        InputError: no such run, several of them, or one that is not finished.
    """
    if not run.strip():  # a variable of the shell that is not set: it would be the working folder
        raise InputError("the name of a run is empty; give the path of its folder")
    path = Path(run)
    paths = [path] if (path / "config.yaml").is_file() else sorted(path.parent.glob(f"{glob.escape(path.name)}-*"))
    if not paths and path.resolve() == Path(path.resolve().anchor):
        raise InputError(f"{run!r} is all of a disk, not the folder of a run")
    if not paths and (runs := sorted(str(p.parent) for p in path.rglob("metrics.json"))):
        raise InputError(f"{run!r} holds {len(runs)} finished runs; name one: {some_of(runs, 5)}")
    if not paths:
        near = nearest(run[:LONGEST], _known_runs(path))
        told = f"; the nearest are {', '.join(near)} (the hash at the end may be left out)" if near else ""
        raise InputError(f"no run {run!r}{told}")
    if len(paths) > 1:
        raise InputError(f"{run!r} matches several runs, {[p.name for p in paths]}; give one name in full")
    folder = RunFolder(paths[0])
    if not folder.finished:
        raise InputError(f"the run {paths[0]} is not finished; run its training command again to resume")
    return folder


def _known_runs(path: Path) -> list[str]:
    """Finished runs where one at ``path`` would be, but for a mistyped folder, and those below the default folder."""
    there = next((parent for parent in path.parents if parent.is_dir()), path)
    missing = len(path.parts) - len(there.parts)
    places = {(path.parent.parent, 2), (there, min(missing, DEEPEST)), (Path(RUNS), 2), (Path(RUNS), DEEPEST)}
    kept = {
        str(file.parent)
        for folder, depth in places
        if depth and folder.is_dir() and str(folder) != folder.anchor  # never all of a disk
        for file in folder.glob(f"{'/'.join('*' * depth)}/metrics.json")
    }
    return sorted(kept)
