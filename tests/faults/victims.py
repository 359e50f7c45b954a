"""Runs as processes that may be killed: forked from one process that has everything loaded, the real `train` inside.

A start of the command itself loads PyTorch for five seconds, in which nothing can be lost; forking leaves them out.
"""

import atexit
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import letters
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tiny_run import CLIP, TINY

from kravl.config.compose import register_configs
from kravl.config.schema import CONFIGS
from kravl.training.checkpoint import damage, newest_first

TESTS = Path(__file__).parents[1]
FILES = ("adapter.safetensors", "metrics.json", "spectra.safetensors")
Hook = Callable[[], None]
register_configs()
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["faults.warm"])


def configured(folder: Path, *overrides: str) -> Any:
    """The config of a tiny run below ``folder``: 24 letters, a model of two blocks, 12 steps, each of them saved."""
    root = folder.parent / "letters"
    if not root.exists():
        letters.write(root / "glyphs", "ABCD")
    where = (f"data_root={root}", f"runs={folder}", "cache_root=null", "optim.epochs=4", "alphas=1")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [*TINY, *CLIP, *where, *overrides])


def start(
    cfg: Any, out: Path, hook: Hook | None = None, environment: Sequence[tuple[str, str]] = ()
) -> ForkServerProcess:
    """A process that trains by ``cfg`` after calling ``hook``; what it prints goes to the end of the file ``out``."""
    return launch(_train, cfg, out, hook, environment)


def launch(task: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A process, with everything loaded, that calls ``task`` with ``arguments``."""
    path = os.environ.get("PYTHONPATH")
    # read when the server starts
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "support")))
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({"PYTHONPATH": path} if path is not None else {})
    process = SERVER.Process(target=task, args=arguments)
    process.start()
    return process


def run(cfg: Any, out: Path, hook: Hook | None = None) -> int:
    """Train in a process to its end; its exit code, negative for a signal."""
    process = start(cfg, out, hook)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@cache
def unbroken(*overrides: str) -> Path:
    """The folder of runs that holds one with these settings that nothing happened to; trained once a process."""
    place = Path(tempfile.mkdtemp()) / "runs"
    atexit.register(shutil.rmtree, place.parent)
    assert run(configured(place, *overrides), place.with_suffix(".log")) == 0
    return place


def results(folder: Path) -> dict[str, bytes]:
    """What must not differ by a bit: adapter, metrics and, where there are sites, spectra of the one finished run."""
    (place,) = {path.parent for path in folder.glob("*/seed*/metrics.json")}
    return {name: (place / name).read_bytes() for name in FILES if (place / name).exists()}


def differing_bits(ours: Path, theirs: Path) -> list[str]:
    """Names of files, and within the adapter of tensors, that differ between two finished runs."""
    files = [name for name in FILES if results(ours).get(name) != results(theirs).get(name)]
    ((a,), (b,)) = (folder.glob("*/seed*/adapter.safetensors") for folder in (ours, theirs))
    tensors = load_file(b)
    return files + [name for name, tensor in load_file(a).items() if not tensor.equal(tensors[name])]


def expected_state(folder: Path) -> Path | None:
    """The newest whole checkpoint of the one run below ``folder``: what the next start is to resume from."""
    return next((p for place in folder.glob("*/*/checkpoints") for p in newest_first(place) if not damage(p)), None)


def expected_line(folder: Path) -> str | None:
    """What the next start of the run below ``folder`` is to say: that training has ended, or what it resumes from."""
    if any(folder.glob("*/*/checkpoints/trained.json")):
        return "training has ended before"
    state = expected_state(folder)
    return f"resuming from {state}" if state else None


def leftovers(folder: Path) -> list[str]:
    """Files below ``folder`` that only a process that was killed leaves."""
    return [str(p) for p in folder.rglob(".*") if p.name != ".lock"]


def _train(cfg: Any, out: Path, hook: Hook | None, environment: Sequence[tuple[str, str]]) -> None:
    descriptor = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of data loaders' workers, as in a run on Linux
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import torch

    from kravl.run.train import train

    torch.set_num_threads(1)
    if hook is not None:
        hook()
    train(cfg)
    sys.stdout.flush()
