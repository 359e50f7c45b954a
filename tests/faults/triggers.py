"""Hooks that make a fault happen at an exact place of a run; all else of the run is real."""

import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


@dataclass(frozen=True)
class AtCall:
    """Before the ``number``-th call of ``place`` do ``action``; calls from then on leave a line in ``counted``.

    Args:
        place: ``module:Class.method`` or ``module:function``.
    """

    place: str
    number: int
    action: Callable[[], None]
    counted: Path | None = None

    def __call__(self) -> None:
        module, _, path = self.place.partition(":")
        *owners, name = path.split(".")
        holder: Any = importlib.import_module(module)
        for owner in owners:
            holder = getattr(holder, owner)
        original, calls = getattr(holder, name), [0]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == self.number:
                self.action()
            if calls[0] >= self.number and self.counted is not None:
                with self.counted.open("a") as file:
                    file.write(f"{calls[0]}\n")
            return original(*args, **kwargs)

        setattr(holder, name, wrapped)


@dataclass(frozen=True)
class Send:
    """Send these signals to this process, or to all of its group, as a terminal and some schedulers do."""

    signals: Sequence[int]
    group: bool = False

    def __call__(self) -> None:
        for number in self.signals:
            os.killpg(0, number) if self.group else os.kill(os.getpid(), number)


@dataclass(frozen=True)
class OwnGroup:
    """Become the head of a group of processes, then call ``hook``."""

    hook: Callable[[], None]

    def __call__(self) -> None:
        os.setpgid(0, 0)
        self.hook()


@dataclass(frozen=True)
class KillAtFileEvent:
    """Die just before the ``number``-th time that Python opens, makes, renames or removes something in a ``folder``."""

    folder: str
    number: int

    def __call__(self) -> None:
        seen = [0]

        def watch(event: str, args: tuple[Any, ...]) -> None:
            if event in FILE_EVENTS and any(self.folder in os.fspath(a) for a in args if isinstance(a, str | Path)):
                seen[0] += 1
                if seen[0] == self.number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)


@dataclass(frozen=True)
class FillDisk:
    """From now on no file grows beyond ``room`` bytes, which is what a full disk looks like to one user."""

    room: int

    def __call__(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@dataclass(frozen=True)
class LimitMemory:
    """Let an image tower take ``each`` bytes an image, of which the address space has room for ``images`` and a half.

    The failure is the allocator's own. From the ``call``-th batch on.
    """

    images: int
    call: int
    each: int = 2**27

    def __call__(self) -> None:
        import torch

        from kravl.backbones.clip import ClipClassifier

        original, calls = ClipClassifier.image_features, [0]

        def hungry(classifier: ClipClassifier, images: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            if calls[0] == self.call:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                room = used + self.images * self.each + self.each // 2
                resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))
            if calls[0] >= self.call:
                torch.empty(len(images) * self.each, dtype=torch.uint8)
            return original(classifier, images)

        ClipClassifier.image_features = hungry


@dataclass(frozen=True)
class Poison:
    """Before the ``number``-th step one trained weight is not a number any more."""

    number: int

    def __call__(self) -> None:
        import torch

        from kravl.training.learner import Learner

        original, calls = Learner.training_step, [0]

        def step(learner: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
            calls[0] += 1
            if calls[0] == self.number:
                with torch.no_grad():
                    next(iter(learner.trainable().values())).view(-1)[0] = float("nan")
            return original(learner, batch, batch_idx)

        Learner.training_step = step
