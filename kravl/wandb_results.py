"""What W&B holds of a finished run beside its summary: the whole record, and the lines and table of a dashboard."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kravl.tracking import TrainerLogger
from kravl.wandb_logger import SafeWandbLogger

ID, OOD = "test/accuracy", "ood_mean"
Rows = Sequence[Mapping[str, float | None]]


@rank_zero_only
def log_result(
    logger: TrainerLogger, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]
) -> None:
    """Everything that a report or `kravl.dashboard` reads; nothing for another logger than W&B.

    The summary gets ``record`` (as metrics.json, its config apart) and ``cost`` (as cost.json), so that W&B's folder
    alone makes a report; the history ``wise_ft/*`` by alpha and ``calibration/*`` by confidence, both on ``test``.
    """
    if not isinstance(logger, SafeWandbLogger):
        return
    numbers = {name: value for name, value in cost.items() if isinstance(value, int | float)}
    if (rank := record["effective_rank"].get("mean")) is not None:
        numbers["effective_rank"] = rank
    whole = {key: value for key, value in record.items() if key != "config"}
    logger.attempt(lambda: logger.experiment.summary.update({**numbers, "record": whole, "cost": dict(cost)}))
    ends = [{"alpha": 0.0, **record["zero_shot"]}] if record["zero_shot"] else []
    curve = [*ends, *record["wise_ft"], {"alpha": 1.0, **record["metrics"]}]
    _line(logger, "wise_ft", "alpha", [{key: point.get(key) for key in ("alpha", ID, OOD)} for point in curve])
    bins = details["reliability"]["adapted"]["test"]
    _line(logger, "calibration", "confidence", [{"confidence": sure, "accuracy": right} for _, sure, right in bins])
    counts = zip(details["class_names"], details["images"], details["hits"]["adapted"], strict=True)
    rows = [[name, images, hits / images] for name, images, hits in counts if images]
    columns: list[str | int] = ["class", "images", "recall"]
    logger.attempt(lambda: logger.experiment.log({"classes/test": wandb.Table(columns=columns, data=rows)}))


def _line(logger: SafeWandbLogger, group: str, axis: str, rows: Rows) -> None:
    """One line of history per row, each of its numbers drawn against that of ``axis``."""

    def add() -> None:
        for name in rows[0]:
            logger.experiment.define_metric(f"{group}/{name}", step_metric=f"{group}/{axis}", step_sync=True)
        for row in rows:
            logger.experiment.log({f"{group}/{name}": value for name, value in row.items() if value is not None})

    logger.attempt(add)
