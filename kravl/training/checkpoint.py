"""The training state as safetensors, JSON and a manifest: no pickle is written or read."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import fsync, read_json, refuse_endless

log = logging.getLogger(__name__)
TENSORS, STATE = "tensors.safetensors", "state.json"
FILES = (TENSORS, STATE)
MANIFEST = "manifest.json"
MAX_JSON = 16 * 2**20  # bytes; the state of several thousand tensors takes far less
ASIDE = ".aside"
LARGEST = 2**53  # of a count
# where Lightning counts what a state is of
STEPS_DONE = (
    "fit_loop",
    "epoch_loop.automatic_optimization.optim_progress",
    "optimizer",
    "step",
    "total",
    "completed",
)
EPOCHS_DONE = ("fit_loop", "epoch_progress", "current", "processed")


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; tensors go to ``tensors`` by number, dictionaries become lists of pairs (keys may be ints)."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [encode(item, tensors) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), f"cannot save a {type(value).__name__}"
    return value


def decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `encode`. Raises ValueError, KeyError or TypeError for what `encode` did not produce."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in content)
    return {key: decode(item, tensors) for key, item in content}


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written; earlier ones are intact."""


class SafeCheckpointIO(CheckpointIO):
    """Lightning's plugin for a checkpoint format: each checkpoint is a folder that is written atomically."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary folder beside ``path``, flush it to disk, and rename it.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        final = Path(path)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        tensors: dict[str, Tensor] = {}
        state = json.dumps(encode(checkpoint, tensors))
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(tensors, state, temporary)
            _place(temporary, final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            needed = len(state) + sum(tensor.nbytes for tensor in tensors.values())
            raise CheckpointError(
                f"cannot write the checkpoint {final} ({needed:,} bytes needed): {first_line(error)}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The saved dictionary, tensors on the CPU. Raises InputError where a file is missing or altered."""
        folder = Path(path)
        if reason := damage(folder):
            raise InputError(f"checkpoint {folder} is damaged: {reason}")
        try:
            return decode(json.loads((folder / STATE).read_text()), load_file(folder / TENSORS))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise InputError(f"checkpoint {folder} was not written by kravl: {first_line(error)}") from error

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def _write(tensors: Mapping[str, Tensor], state: str, folder: Path) -> None:
    save_file(dict(tensors), folder / TENSORS)
    (folder / STATE).write_text(state)
    manifest = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in FILES}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    for file in [*folder.iterdir(), folder]:
        fsync(file)


def _place(temporary: Path, final: Path) -> None:
    """Rename; a checkpoint of that name is set aside first, where `latest` finds it if this process is killed now."""
    aside = final.with_name(f".{final.name}{ASIDE}")
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    temporary.replace(final)
    fsync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def damage(folder: Path) -> str | None:
    """What is wrong with the checkpoint ``folder``, or None."""
    try:
        manifest = _bounded_json(folder / MANIFEST)
        for name in FILES:
            size, recorded = (folder / name).stat().st_size, manifest[name]
            if size != recorded["bytes"]:
                return f"{name} has {size:,} bytes, {recorded['bytes']:,} were written"
            if _sha256(folder / name) != recorded["sha256"]:
                return f"{name} is not what was written"
        _bounded_json(folder / STATE)
    except InputError as error:
        return str(error)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__} {first_line(error)}"
    return None


def check_progress(state: Mapping[str, Any]) -> None:
    """Raise InputError unless the counts of a decoded ``state`` are counts, and agree on its step and its epoch.

    Whole files may hold odd values: Lightning would take some of them for the end of training.
    """
    loops = state.get("loops")
    if wrong := next((leaf for leaf in _leaves(loops) if not _is_count(leaf)), None):
        raise InputError(f"the checkpoint counts {str(wrong)[:40]!r} steps, batches or epochs")
    step, epoch = state.get("global_step"), state.get("epoch")
    counted = [_inside(loops, *path) for path in (STEPS_DONE, EPOCHS_DONE)]
    if [step, epoch] != counted or not _is_count(step):
        said = f"{str(step)[:40]} steps and {str(epoch)[:40]} epochs"
        raise InputError(f"the checkpoint says that it is of {said}, and its loops say {counted[0]} and {counted[1]}")
    for key in ("optimizer_states", "lr_schedulers"):  # Lightning would begin anew with what is not there
        kept = state.get(key)
        if not (isinstance(kept, list) and len(kept) == 1 and isinstance(kept[0], Mapping) and kept[0]):
            raise InputError(f"the checkpoint lacks its {key}: {str(kept)[:40]}")
    if step and not state["optimizer_states"][0].get("state"):
        raise InputError(f"the checkpoint of step {step} has an optimiser that made no step")


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping | list | tuple):
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(item)
    else:
        yield tree


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < LARGEST


def _inside(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def latest(folder: Path, tidy: bool = True) -> Path | None:
    """The newest intact checkpoint in ``folder``; damaged ones are skipped with a warning.

    With ``tidy``, damaged ones and leftovers are removed; only one of several processes may do so.
    """
    if tidy:
        _clean_up(folder)
    for path in newest_first(folder):
        if not (reason := damage(path)):
            return path
        if tidy:
            log.warning("checkpoint %s is damaged (%s); falling back to the previous one", path, reason)
            shutil.rmtree(path)
    return None


def _clean_up(folder: Path) -> None:
    """Finish or undo what a killed process was doing."""
    for aside in folder.glob(f".*.ckpt{ASIDE}"):
        final = aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))
        shutil.rmtree(aside) if final.exists() else aside.rename(final)
    for leftover in folder.glob(".*.ckpt.*"):
        shutil.rmtree(leftover)


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints ``step=<number>.ckpt`` in ``folder``, intact or not."""
    steps = {path: path.stem.removeprefix("step=") for path in folder.glob("step=*.ckpt")}
    return sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda p: -int(steps[p]))


def _bounded_json(file: Path) -> Any:
    return read_json(file, MAX_JSON)


def _sha256(path: Path) -> str:
    refuse_endless(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
