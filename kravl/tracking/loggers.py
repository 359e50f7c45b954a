"""Where a run's numbers go during training and at its end: Weights & Biases, CSV files or nowhere."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
from PIL.Image import Image
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kravl.runtime.errors import unknown
from kravl.tracking.wandb_run import SafeWandbLogger, start_wandb

KINDS = ("none", "wandb", "csv")
TAG_LENGTH = 64  # characters; W&B refuses longer ones
THUMBNAIL = 256  # pixels of the longer side
TrainerLogger = Logger | Literal[False]  # what `Trainer(logger=...)` takes
ID, OOD = "test/accuracy", "ood_mean"
HistoryRows = Sequence[Mapping[str, float | None]]


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
    def tags(self) -> list[str]:
        """Every label as a tag of its own."""
        labels = (self.backbone, self.method, self.dataset, self.amount, f"seed{self.seed}")
        return [label[:TAG_LENGTH] for label in labels]


def check_tracking(kind: str) -> None:
    """Raise InputError where ``kind`` is not one of none, wandb, csv."""
    if kind not in KINDS:
        raise unknown("tracking", kind, KINDS)


def make_logger(kind: str, folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> TrainerLogger:
    """A logger that writes ``config`` and metrics to ``folder``/wandb or ``folder``/csv.

    W&B groups runs by study, else by $WANDB_RUN_GROUP, else by backbone, dataset and shots; within a group by method
    (the job type), so that means are over seeds. If W&B cannot even start offline, CSV takes its place.

    Raises:
        InputError: ``kind`` is not one of none, wandb, csv.
    """
    check_tracking(kind)
    if kind == "none" or (kind == "wandb" and os.environ.get("WANDB_MODE") == "disabled"):
        return False
    if kind == "wandb":
        name = f"{labels.setting} {labels.method} seed{labels.seed}"
        group = labels.study or os.environ.get("WANDB_RUN_GROUP") or labels.setting
        logger = start_wandb(folder, config, name, group, labels.method, labels.tags)
        if logger is not None:
            return logger
    files = CSVLogger(folder, name="csv")
    files.log_hyperparams(dict(config))
    return files


@rank_zero_only
def log_summary(logger: TrainerLogger, metrics: Mapping[str, float | None]) -> None:
    """The final ``metrics``: columns of W&B's table of runs, or rows of summary.csv. None values are left out."""
    known = {name: value for name, value in metrics.items() if value is not None}
    if isinstance(logger, SafeWandbLogger):
        logger.attempt(lambda: logger.experiment.summary.update(known))
    elif isinstance(logger, CSVLogger):
        with Path(logger.experiment.log_dir, "summary.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("metric", "value"), *known.items()])


@rank_zero_only
def log_histograms(logger: TrainerLogger, values: Mapping[str, Sequence[float]], step: int) -> None:
    """W&B histogram of each name's ``values`` at an optimiser step; CSV has none."""
    if isinstance(logger, SafeWandbLogger):
        histograms = {name: wandb.Histogram(list(numbers)) for name, numbers in values.items()}
        logger.attempt(lambda: logger.experiment.log({**histograms, "trainer/global_step": step}))


@rank_zero_only
def log_samples(logger: TrainerLogger, name: str, rows: Iterable[tuple[Image, str, str, float]]) -> None:
    """W&B table ``samples/<name>`` of (image, class, predicted class, its probability); CSV holds no images."""
    if not isinstance(logger, SafeWandbLogger):
        return
    columns: list[str | int] = ["image", "class", "predicted", "probability", "correct"]
    data = [[_thumbnail(image), label, predicted, p, label == predicted] for image, label, predicted, p in rows]
    logger.attempt(lambda: logger.experiment.log({f"samples/{name}": wandb.Table(columns=columns, data=data)}))


@rank_zero_only
def log_artifact(logger: TrainerLogger, path: Path) -> None:
    """The adapter file ``path`` as W&B artifact ``adapter-<run id>``; a sync uploads it from where it is."""
    if not isinstance(logger, SafeWandbLogger):
        return

    def add() -> None:
        artifact = wandb.Artifact(f"adapter-{logger.experiment.id}", type="adapter")
        artifact.add_file(str(path), policy="immutable")  # no second copy in W&B's own folder
        logger.experiment.log_artifact(artifact)

    logger.attempt(add)


def close_logger(logger: TrainerLogger, failed: bool = False) -> None:
    """End a W&B run, marked as failed or not; the other loggers need no closing."""
    if isinstance(logger, SafeWandbLogger):
        logger.close(failed)


def _thumbnail(image: Image) -> wandb.Image:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return wandb.Image(small)


@rank_zero_only
def log_result(
    logger: TrainerLogger, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]
) -> None:
    """Everything that a report or `kravl dashboard` reads from W&B; other loggers get nothing.

    The summary gets ``record`` (as metrics.json, without config) and ``cost`` (as cost.json), enough for a report;
    the history gets ``wise_ft/*`` by alpha and ``calibration/*`` by confidence, both on ``test``.
    """
    if not isinstance(logger, SafeWandbLogger):
        return
    numbers = {name: value for name, value in cost.items() if isinstance(value, int | float)}
    if (rank := record["effective_rank"].get("mean")) is not None:
        numbers["effective_rank"] = rank
    results = {key: value for key, value in record.items() if key != "config"}
    logger.attempt(lambda: logger.experiment.summary.update({**numbers, "record": results, "cost": dict(cost)}))
    ends = [{"alpha": 0.0, **record["zero_shot"]}] if record["zero_shot"] else []
    curve = [*ends, *record["wise_ft"], {"alpha": 1.0, **record["metrics"]}]
    _line(logger, "wise_ft", "alpha", [{key: point.get(key) for key in ("alpha", ID, OOD)} for point in curve])
    bins = details["reliability"]["adapted"]["test"]
    _line(logger, "calibration", "confidence", [{"confidence": mean, "accuracy": right} for _, mean, right in bins])
    counts = zip(details["class_names"], details["images"], details["hits"]["adapted"], strict=True)
    rows = [[name, images, hits / images] for name, images, hits in counts if images]
    columns: list[str | int] = ["class", "images", "recall"]
    logger.attempt(lambda: logger.experiment.log({"classes/test": wandb.Table(columns=columns, data=rows)}))


def _line(logger: SafeWandbLogger, group: str, axis: str, rows: HistoryRows) -> None:
    """Log each of ``rows`` to the history, its numbers plotted against that of ``axis``."""

    def add() -> None:
        for name in rows[0]:
            logger.experiment.define_metric(f"{group}/{name}", step_metric=f"{group}/{axis}", step_sync=True)
        for row in rows:
            logger.experiment.log({f"{group}/{name}": value for name, value in row.items() if value is not None})

    logger.attempt(add)
