"""What a run tells every tracker, and why none of them can stop it."""

import logging
import os
import re
import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL.Image import Image
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kravl.runtime.errors import first_line
from kravl.runtime.own_files import open_own

log = logging.getLogger(__name__)
TAG_LENGTH = 64  # characters; W&B refuses longer ones
ID, OOD = "test/accuracy", "ood_mean"
SITES = "sites"  # prefix of what is logged of each site
TRACKED = "tracked"  # in a run's folder
Numbers = Mapping[str, float]
Sample = tuple[Image, str, str, float]  # an image, its class, what is predicted and how probable that is


@dataclass(frozen=True)
class RunLabels:
    """What a dashboard groups and filters runs by; ``shots`` None means all images."""

    backbone: str
    method: str
    dataset: str
    shots: int | None
    seed: int
    study: str | None = None

    @property
    def amount(self) -> str:
        """``16-shot``, or ``all-shot`` for all images."""
        return f"{'all' if self.shots is None else self.shots}-shot"

    @property
    def setting(self) -> str:
        """What methods that are compared have in common."""
        return f"{self.backbone} {self.dataset} {self.amount}"

    @property
    def title(self) -> str:
        """What the run is called."""
        return f"{self.setting} {self.method} seed{self.seed}"

    @property
    def tags(self) -> list[str]:
        """Every label as a tag of its own."""
        labels = (self.backbone, self.method, self.dataset, self.amount, f"seed{self.seed}")
        return [label[:TAG_LENGTH] for label in labels]


class Marks:
    """The last step of each metric that a tracker has been given, kept in ``path``: a resumed run repeats some."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        pairs = [found.groups() for line in lines if (found := re.fullmatch(r"(\d{1,18})\t(.+)", line))]
        self._earlier = {name: int(step) for step, name in pairs}  # the last line of a name counts
        self.last = max(self._earlier.values(), default=0)

    def new(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
        """Those of ``metrics`` that no earlier process has given it at this ``step``."""
        return {name: value for name, value in metrics.items() if step is None or self._earlier.get(name, -1) < step}

    def add(self, names: Iterable[str], step: int | None) -> None:
        """Remember that ``names`` were given at ``step``."""
        if step is None:
            return
        self.last = max(self.last, step)
        self.path.parent.mkdir(exist_ok=True)
        with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.writelines(f"{step}\t{name}\n" for name in names)


class Tracker(Logger):
    """A logger of Lightning whose first failure is one warning, and the last thing that is asked of it.

    Args:
        folder: of the run.

    ``trouble`` says why what it holds is not complete.
    """

    kind: ClassVar[str]  # as in tracking=
    title: ClassVar[str]
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    trouble = ""
    copied = True  # whether a tracker that may lose numbers keeps them in csv/, too: not where that is one itself

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.marks = Marks(folder / TRACKED / f"{self.kind}.tsv")

    @property
    def lost(self) -> bool:
        return bool(self.trouble)

    def attempt(self, action: Callable[[], object]) -> None:
        """Run ``action``, unless the tracker has failed before."""
        if self.lost:
            return
        try:
            action()
        except self.failures as error:
            self.trouble = f"{type(error).__name__}: {first_line(error)}"
            log.warning("%s failed (%s); the run continues without it", self.title, self.trouble)

    @rank_zero_only
    def log_metrics(self, metrics: Numbers, step: int | None = None) -> None:
        if new := self.marks.new(metrics, step):
            self.attempt(lambda: self._give(new, step))

    def _give(self, metrics: Numbers, step: int | None) -> None:
        self.write(metrics, step)
        self.marks.add(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a tracker starts with the settings."""

    @property
    def name(self) -> str:
        return self.kind

    @property
    def version(self) -> str | None:
        return None

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    def histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """The distribution of each name's ``values`` at an optimiser step, once."""
        if new := self.marks.new(values, step):
            self.attempt(lambda: self._give_histograms(new, step))

    def _give_histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        self.write_histograms(values, step)
        self.marks.add(values, step)

    @abstractmethod
    def write(self, metrics: Numbers, step: int | None) -> None:
        """Write ``metrics`` of an optimiser step."""

    def write_histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """Write distributions, where the tracker has any."""

    @abstractmethod
    def final(self, metrics: Numbers) -> None:
        """Write what a run came to."""

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Write the ``record`` (as metrics.json), ``cost`` (cost.json) and ``details`` (details.json) besides."""

    def samples(self, name: str, rows: Sequence[Sample]) -> None:
        """Write test images with what was predicted of them, where the tracker takes pictures."""

    def adapter(self, files: Mapping[str, Path | str], metadata: Mapping[str, Any]) -> None:
        """Write what was trained: ``files`` by name, each a path or the text itself, where the tracker takes files."""

    def close(self, failed: bool) -> None:
        """End the run in the tracker."""

    def after(self) -> None:
        """What is left to do here when the run has ended there, or the tracker has failed."""


def wise_ft_curve(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The metrics by ``alpha`` from the pretrained weights (0), where they are a model, to the adapted ones (1)."""
    ends = [{"alpha": 0.0, **record["zero_shot"]}] if record["zero_shot"] else []
    return [*ends, *record["wise_ft"], {"alpha": 1.0, **record["metrics"]}]


def kept_id(file: Path, digits: int = 8) -> str:
    """A run's id at a tracker, made once and kept in ``file``: a path would not survive a move, and may recur."""
    if not (file.exists() and re.fullmatch(r"\w[\w-]{0,63}", file.read_text(errors="replace"))):
        file.write_text(secrets.token_hex(digits // 2))  # W&B makes a path of it
    return file.read_text()
