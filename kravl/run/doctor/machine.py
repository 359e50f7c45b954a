"""What a run needs of the machine: safe releases, a device, room on disk, keys."""

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_token
from rich.filesize import decimal

from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.data.images import FileOpener
from kravl.run.doctor.checklist import Checklist
from kravl.run.doctor.estimate import FLOAT, Estimate
from kravl.runtime.errors import InputError, require_safe_versions
from kravl.runtime.lock import in_use
from kravl.tracking.kinds import NONE, kinds_of
from kravl.tracking.provenance import package_versions
from kravl.tracking.run_folder import RunFolder, folder_of
from kravl.tracking.server import MLFLOW_URI, TRACKIO_ELSEWHERE, mlflow_obstacle, without_login
from kravl.tracking.settings import Settings
from kravl.tracking.wandb_run import obstacle
from kravl.training.callbacks import NUM_CHECKPOINTS
from kravl.training.trainer import chosen_precision

NVIDIA = Path("/proc/driver/nvidia/version")
MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
TOLD = ("torch", "open_clip_torch", "timm", "pytorch-lightning")
TWICE = 2  # a cache of images is written beside the file that it replaces


def check_versions(checks: Checklist) -> None:
    """Releases that are not known to run code from files."""
    if checks.passes("versions", require_safe_versions):
        versions = package_versions()
        checks.add("ok", "versions", ", ".join(f"{name} {versions[name]}" for name in TOLD))


def check_device(checks: Checklist, trainer: dict[str, Any]) -> torch.device:
    """The device that a run takes, and the precision that it computes in."""
    on_cpu = str(trainer.get("accelerator", "auto")) == "cpu"
    if torch.cuda.is_available() and not on_cpu:
        device = torch.device("cuda", _first(trainer.get("devices", 1)))
        total = torch.cuda.get_device_properties(device).total_memory
        checks.add("ok", "device", f"{torch.cuda.get_device_name(device)}, {decimal(total)}")
    elif torch.backends.mps.is_available() and not on_cpu:
        device = torch.device("mps")
        checks.add("ok", "device", "the GPU of an Apple processor")
    else:
        device = torch.device("cpu")
        kernels, threads, cores = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), os.cpu_count() or 1
        checks.add("ok", "device", f"CPU, {kernels} kernels, {threads} of {cores} cores, {platform.machine()}")
        if threads < cores / 2 and "OMP_NUM_THREADS" in os.environ:
            checks.add("warning", "device", f"OMP_NUM_THREADS={threads} leaves {cores - threads} cores idle; unset it")
        if NVIDIA.is_file() and not on_cpu:
            built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
            checks.add("warning", "device", f"an NVIDIA driver is here, but PyTorch {built} and sees no GPU")
    if precision := checks.attempt("precision", lambda: str(chosen_precision(trainer))):
        checks.add("ok", "precision", precision)
    return device


def _first(devices: Any) -> int:
    """The number of the first GPU that Trainer takes: that of a list, else 0; 0 too where there is none of it."""
    first = int(devices[0]) if isinstance(devices, Sequence) and not isinstance(devices, str) and devices else 0
    return first if 0 <= first < torch.cuda.device_count() else 0


def check_run_folder(checks: Checklist, cfg: Config, settings: Settings) -> Path | None:
    """Where the run will be: not in use, and whether it is new; None where it cannot be written."""
    path = checks.attempt("folder", lambda: folder_of(cfg.runs, cfg.name, cfg.seed, settings))
    if path is None:
        return None
    folder = RunFolder(path)
    if in_use(path):
        checks.add("error", "folder", f"{path} is in use by another process; wait for it or change name=")
    elif folder.finished:
        checks.add("warning", "folder", f"{path} is finished: the command skips it; overwrite=true runs it again")
    elif checks.passes("folder", partial(_check_writable, path)):
        checks.add("ok", "folder", f"{path}{', resumed from its checkpoint' if folder.has_checkpoint else ''}")
    return path


def _check_writable(path: Path) -> None:
    """Raise InputError where nothing can be written to the nearest folder of ``path`` that exists."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be written: {error.strerror}; pass runs=/a/folder") from error


def check_disk(checks: Checklist, path: Path, cost: Estimate, downloads: int) -> None:
    """Room for checkpoints in the run's folder ``path``, and for ``downloads`` files of weights in the hub's cache."""
    one, name = cost.checkpoint_bytes, "disk"
    needed = (NUM_CHECKPOINTS + 1) * one  # the next is written before the oldest is removed
    room = _room(checks, name, "the run folder", path, needed)
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < one:
        checks.add("error", name, f"a checkpoint has {decimal(one)}; `ulimit -f` allows files of {decimal(largest)}")
    elif room:
        checks.add("ok", name, f"{decimal(needed)} for checkpoints at most, {decimal(room)} free")
    if downloads:
        size = FLOAT * cost.parameters
        cache = Path(constants.HF_HUB_CACHE)
        if room := _room(checks, name, "the cache of weights", cache, size):
            checks.add("ok", name, f"about {decimal(size)} to download to {cache}, {decimal(room)} free")


def _room(checks: Checklist, name: str, what: str, path: Path, needed: int) -> int:
    """Free bytes; 0 where they do not suffice, which is told."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if free >= needed:
        return free
    checks.add("error", name, f"{what} {path} needs {decimal(needed)}, and {decimal(free)} are free; choose another")
    return 0


def check_memory(checks: Checklist, cost: Estimate, device: torch.device, half: bool) -> None:
    """Memory for a training step on the ``device``; where it runs out, kravl splits the batch."""
    needed, free = cost.memory_bytes(FLOAT // 2 if half else FLOAT), _free_memory(device)
    beside = "" if device.type == "cuda" else f" beside the {decimal(_own_memory())} of this process"
    text = f"about {decimal(needed)} for the weights and a step of {cost.batch} images{beside}, {decimal(free)} free"
    if needed <= free:
        checks.add("ok", "memory", text)
    elif FLOAT * cost.parameters > free:
        checks.add("error", "memory", f"{text}: the weights alone take more; choose a smaller backbone")
    else:
        checks.add("warning", "memory", f"{text}: the batch will be split; checkpointing=true keeps less")


def _own_memory() -> int:
    """Resident bytes of this process, which has loaded what a run loads besides the model."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_cache(checks: Checklist, cfg: Config, data: FewShotDataModule, cost: Estimate) -> None:
    """Room for the resized evaluation images that are files; without it they are read anew each time."""
    if cfg.cache_root is None:
        return
    images = sum(len(samples) for samples in data.evaluated.values() if isinstance(samples.opener, FileOpener))
    needed = TWICE * 3 * cost.pixels * images
    folder = Path(cfg.cache_root).expanduser()
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        need = f"{folder} needs {decimal(needed)} for resized images, and {decimal(free)} are free"
        checks.add("warning", "cache", f"{need}: images are read anew each time; cache_root=/a/folder or null")


def check_keys(checks: Checklist, tracking: str | Sequence[str]) -> None:
    """Keys and servers of the trackers and of the Hugging Face Hub; a run does without any."""
    kinds = checks.attempt("tracking", lambda: kinds_of(tracking))
    if kinds is not None and not {"wandb", "mlflow", "trackio"} & {*kinds}:
        checks.add("ok", "tracking", f"{', '.join(kinds) or NONE}: no key is needed")
    for kind, check in {"wandb": _check_wandb, "mlflow": _check_mlflow, "trackio": _check_trackio}.items():
        if kind in (kinds or ()):
            check(checks)
    offline = ", and HF_HUB_OFFLINE is set: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    checks.add("ok", "hub", f"{'a token' if get_token() else 'no token: public weights alone'}{offline}")


def _check_wandb(checks: Checklist) -> None:
    if reason := obstacle():
        checks.add("warning", "W&B", f"logs offline: {reason}; `wandb login` or tracking=csv, none")
    else:
        checks.add("ok", "W&B", "a key, and the server answers")


def _check_mlflow(checks: Checklist) -> None:
    uri, beside = without_login(os.environ.get(MLFLOW_URI, "")), "a database in the run's folder"
    if reason := mlflow_obstacle():
        checks.add("warning", "MLflow", f"{reason}: {beside} takes its place")
    else:
        checks.add("ok", "MLflow", uri or f"{beside}; ${MLFLOW_URI} names a server or one for all runs")


def _check_trackio(checks: Checklist) -> None:
    if named := [name for name in TRACKIO_ELSEWHERE if os.environ.get(name)]:
        checks.add("warning", "Trackio", f"${named[0]} is set: runs are sent there, which is not tried here")
    else:
        checks.add("ok", "Trackio", "its own folder on this machine; no key is needed")
