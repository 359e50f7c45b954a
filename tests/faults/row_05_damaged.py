"""A checkpoint that is not what was written is noticed, whatever has changed, and the one before is taken."""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, differing_bits, run, unbroken

from kravl.runtime.errors import InputError
from kravl.training.checkpoint import SafeCheckpointIO, damage, latest

Mutate = Callable[[Path, random.Random], None]


def damaged(count: int, folder: Path) -> Outcome:
    """``count`` mutations of one file of the newest of two states; after the last of each kind the run is finished."""
    rng, failures = random.Random(0), []
    killed = AtCall("kravl.training.checkpoint:_write", 8, Send((signal.SIGKILL,)))
    run(configured(folder / "killed"), folder / "killed.log", killed)
    (states,) = (folder / "killed").glob("*/*/checkpoints")
    for i in range(count):
        copy = folder / "copy"
        shutil.copytree(states, copy)
        mutate = MUTATIONS[i % len(MUTATIONS)]
        newest = copy / "step=6.ckpt"
        before = [(p, p.read_bytes()) for p in sorted(newest.iterdir())]
        mutate(rng.choice([p for p, _ in before]), rng)
        if problem := _taken(copy, newest):
            failures.append(f"{i}, {mutate.__name__}: {problem}")
        shutil.rmtree(copy)
    failures += _finished(folder, states, rng)
    return Outcome(count, f"{count} mutations, {count - len(failures)} detected", failures)


def _taken(copy: Path, newest: Path) -> str | None:
    if damage(newest) is None:
        return "not noticed"
    try:
        SafeCheckpointIO().load_checkpoint(newest)
        return "loaded"
    except InputError as error:
        if "\n" in str(error):
            return f"said in several lines: {error}"
    taken = latest(copy)
    return None if taken == copy / "step=5.ckpt" else f"{taken} is taken in its place"


def _finished(folder: Path, states: Path, rng: random.Random) -> list[str]:
    """A run whose newest state is damaged ends like the unbroken one."""
    _flip(states / "step=6.ckpt/tensors.safetensors", rng)
    code = run(configured(folder / "killed"), folder / "killed.log")
    said = "step=6.ckpt is damaged" in (folder / "killed.log").read_text()
    equal = code == 0 and not differing_bits(folder / "killed", unbroken())
    return [] if said and equal else [f"the run did not go on: exit code {code}, said so: {said}"]


def _flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _truncate(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content))])


def _empty(file: Path, rng: random.Random) -> None:
    file.write_bytes(b"")


def _remove(file: Path, rng: random.Random) -> None:
    file.unlink()


def _append(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def _zeros(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def _other(file: Path, rng: random.Random) -> None:
    """The same file of the state before."""
    shutil.copyfile(file.parent.with_name("step=5.ckpt") / file.name, file)


MUTATIONS: tuple[Mutate, ...] = (_flip, _truncate, _empty, _remove, _append, _zeros, _other, _flip, _flip, _truncate)
ROW = Row(
    5,
    "the newest state truncated, flipped, emptied, removed, lengthened, zeroed or mixed with another",
    "100 % detected, 0 tracebacks, 0 silent loads",
    1000,
    40,
    damaged,
)
