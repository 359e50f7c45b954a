"""Where a run's numbers go during training and at its end: one tracker, several or none."""

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kravl.runtime.errors import first_line
from kravl.tracking.kinds import kinds_of
from kravl.tracking.trackers.tracker import RunLabels, Sample, Tracker

# what a package reads when it is imported, unless the user says otherwise
ENVIRONMENT = {
    "mlflow": {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # of 7, with waits that double: minutes for a server that has gone
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds, of 120
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trackers:
    """All trackers of a run; whatever fails in one of them is told, and stops neither the run nor the others."""

    each: Sequence[Tracker] = ()
    absent: Sequence[str] = field(default_factory=list)  # what did not start, and why

    @property
    def loggers(self) -> list[Logger]:
        """As `Trainer(logger=...)` takes them."""
        return list(self.each)

    @rank_zero_only
    def _tell(self, action: Callable[[Tracker], object]) -> None:
        for tracker in self.each:
            tracker.attempt(lambda tracker=tracker: action(tracker))  # type: ignore[misc]

    @rank_zero_only
    def histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """The distribution of each name's ``values`` at an optimiser step."""
        for tracker in self.each:
            tracker.histograms(values, step)

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """What came out: the ``record`` (as metrics.json), ``cost`` (cost.json) and ``details`` (details.json)."""
        numbers = final_metrics(record, cost)
        self._tell(lambda tracker: tracker.final(numbers))
        self._tell(lambda tracker: tracker.result(record, cost, details))

    def samples(self, name: str, rows: Iterable[Sample]) -> None:
        """Test images of the set ``name`` with what was predicted of them."""
        listed = list(rows)
        self._tell(lambda tracker: tracker.samples(name, listed))

    def adapter(self, files: Mapping[str, Path | str], metadata: Mapping[str, Any]) -> None:
        """What was trained: ``files`` by name, each a path or the text itself, and what is said of them."""
        self._tell(lambda tracker: tracker.adapter(files, metadata))

    @rank_zero_only
    def close(self, failed: bool = False) -> None:
        """End the run in every tracker, and say of which it is not complete."""
        self._tell(lambda tracker: tracker.close(failed))
        for tracker in self.each:
            tracker.after()
        broken = [*self.absent, *(f"{tracker.title} ({tracker.trouble})" for tracker in self.each if tracker.lost)]
        if broken:
            log.warning("not tracked, or not to the end: %s; metrics.json has everything", "; ".join(broken))


def make_trackers(
    tracking: str | Sequence[str], folder: Path, labels: RunLabels, config: Mapping[str, Any]
) -> Trackers:
    """The trackers that ``tracking`` names, of the run in ``folder``; ``config`` are its settings.

    What cannot start is told. If W&B cannot even start offline, CSV takes its place. Of several processes the first
    has trackers.

    Raises:
        InputError: as `kinds_of`.
    """
    kinds = [kind for kind in kinds_of(tracking) if kind != "wandb" or os.environ.get("WANDB_MODE") != "disabled"]
    if getattr(rank_zero_only, "rank", 0) != 0:
        return Trackers()
    each: list[Tracker] = []
    absent: list[str] = []
    for kind in kinds:
        if tracker := _started(kind, folder, labels, config):
            each.append(tracker)
        else:
            absent.append(kind)
    if "wandb" in absent and "csv" not in kinds:
        return Trackers([*each, *make_trackers("csv", folder, labels, config).each], absent)
    for tracker in each:
        tracker.copied = "csv" not in kinds
    return Trackers(each, absent)


def _started(kind: str, folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker | None:
    for name, value in ENVIRONMENT.get(kind, {}).items():
        os.environ.setdefault(name, value)
    try:
        tracker: Tracker | None = importlib.import_module(f"kravl.tracking.trackers.{kind}").start(
            folder, labels, config
        )
    except (ImportError, OSError) as error:
        log.warning("tracking=%s does not start (%s)", kind, first_line(error))
        return None
    return tracker


def final_metrics(record: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a run by name: metrics of each set, zero-shot's, what was gained in accuracy, size and cost."""
    metrics, zero_shot = record["metrics"], record["zero_shot"] or {}
    gained = {
        name: value - zero_shot[name]
        for name, value in metrics.items()
        if (name.endswith("/accuracy") or name in ("ood_mean", "harmonic_mean"))
        and value is not None
        and zero_shot.get(name) is not None
    }
    named = {"zero_shot": zero_shot, "gain": gained}
    numbers = {**metrics, **{f"{kind}/{name}": value for kind, of in named.items() for name, value in of.items()}}
    numbers |= {key: record.get(key) for key in ("trainable_parameters", "adapter_bytes")}
    numbers |= {"effective_rank": record["effective_rank"].get("mean"), **cost}
    return {name: v for name, v in numbers.items() if isinstance(v, int | float) and not isinstance(v, bool)}
