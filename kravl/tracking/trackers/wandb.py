"""Weights & Biases, by its own client: curves, tables, the adapter as an artifact, and the whole record."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from PIL.Image import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kravl.tracking.trackers.csv import FOLDER
from kravl.tracking.trackers.tracker import ID, OOD, Numbers, RunLabels, Sample, Tracker, wise_ft_curve
from kravl.tracking.wandb_run import FAILURES, start_wandb, tear_down

THUMBNAIL = 256  # pixels of the longer side
STEP = "trainer/global_step"
ACCURACY = "accuracy"  # of each set once more, in a section that W&B shows before those of the sets
MEANS = (OOD, "harmonic_mean")
log = logging.getLogger(__name__)
HistoryRows = Sequence[Mapping[str, float | None]]


class Wandb(Tracker):
    """A run of W&B whose metrics also go to CSV in the run's folder.

    The CSV is written once W&B has failed, and at the end of every run: a W&B process that dies loses what it was
    given last, and nothing may notice before the end.
    """

    kind = "wandb"
    title = "W&B"
    failures = FAILURES

    def __init__(self, folder: Path, run: wandb.Run) -> None:
        super().__init__(folder)
        self.experiment = run
        self._files = CSVLogger(folder, name=FOLDER)
        self._unwritten: list[tuple[Numbers, int | None]] = []

    @property
    def version(self) -> str:
        return str(self.experiment.id)

    @rank_zero_only
    def log_metrics(self, metrics: Numbers, step: int | None = None) -> None:
        self._unwritten.append((dict(metrics), step))
        super().log_metrics(metrics, step)
        if self.lost:
            self._copy()

    def write(self, metrics: Numbers, step: int | None) -> None:
        self.experiment.log(dict(metrics) if step is None else {**metrics, STEP: step})

    def write_histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        histograms = {name: wandb.Histogram(list(numbers)) for name, numbers in values.items()}
        self.experiment.log({**histograms, STEP: step})

    def final(self, metrics: Numbers) -> None:
        first = {f"{ACCURACY}/{name}": metrics[name] for name in MEANS if name in metrics}
        sets = (name.rpartition("/")[0] for name in metrics if name.endswith(f"/{ACCURACY}"))
        first |= {f"{ACCURACY}/{name}": metrics[f"{name}/{ACCURACY}"] for name in sets}
        self.experiment.summary.update({**metrics, **first})

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Everything that a report or `kravl dashboard` reads: the record and cost in the summary, curves, recall."""
        results = {key: value for key, value in record.items() if key != "config"}
        self.experiment.summary.update({"record": results, "cost": dict(cost)})
        curve = wise_ft_curve(record)
        self._line("wise_ft", "alpha", [{key: point.get(key) for key in ("alpha", ID, OOD)} for point in curve])
        bins = details["reliability"]["adapted"]["test"]
        self._line("calibration", "confidence", [{"confidence": mean, "accuracy": right} for _, mean, right in bins])
        counts = zip(details["class_names"], details["images"], details["hits"]["adapted"], strict=True)
        rows = [[name, images, hits / images] for name, images, hits in counts if images]
        columns: list[str | int] = ["class", "images", "recall"]
        self.experiment.log({"classes/test": wandb.Table(columns=columns, data=rows)})

    def _line(self, group: str, axis: str, rows: HistoryRows) -> None:
        """Log each of ``rows`` to the history, its numbers plotted against that of ``axis``."""
        for name in rows[0]:
            self.experiment.define_metric(f"{group}/{name}", step_metric=f"{group}/{axis}", step_sync=True)
        for row in rows:
            self.experiment.log({f"{group}/{name}": value for name, value in row.items() if value is not None})

    def samples(self, name: str, rows: Sequence[Sample]) -> None:
        """A table ``samples/<name>`` of (image, class, predicted class, its probability)."""
        columns: list[str | int] = ["image", "class", "predicted", "probability", "correct"]
        data = [[_thumbnail(image), label, predicted, p, label == predicted] for image, label, predicted, p in rows]
        self.experiment.log({f"samples/{name}": wandb.Table(columns=columns, data=data)})

    def adapter(self, files: Mapping[str, Path | str], metadata: Mapping[str, Any]) -> None:
        """An artifact ``adapter-<run id>``; a sync uploads the run's files from where they are."""
        artifact = wandb.Artifact(f"adapter-{self.experiment.id}", type="adapter", metadata=dict(metadata))
        for name, content in files.items():
            if isinstance(content, Path):
                artifact.add_file(str(content), name, policy="immutable")  # no second copy in W&B's own folder
            else:
                with artifact.new_file(name, mode="w", encoding="utf-8") as file:
                    file.write(content)
        self.experiment.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """End the run, so that the next one in this process is separate."""
        self.experiment.finish(exit_code=int(failed))

    def after(self) -> None:
        """Write the CSV, and end a W&B that has failed."""
        self._copy()
        if self.lost:
            tear_down()

    def _copy(self) -> None:
        if not self._unwritten or not self.copied:
            return
        try:
            for row, step in self._unwritten:
                self._files.log_metrics(dict(row), step)
            self._files.save()
            self._unwritten = []
        except OSError as error:
            log.warning("the metrics could not be written to %s/csv: %s", self.save_dir, error)


def _thumbnail(image: Image) -> wandb.Image:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return wandb.Image(small)


def start(folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker | None:
    """A run that is grouped by study, else by $WANDB_RUN_GROUP, else by backbone, data set and shots.

    Within a group its job type is the method. None if W&B cannot even start offline.
    """
    given: dict[str, Any] = {"config": config, "name": labels.title, "job_type": labels.method, "tags": labels.tags}
    given["group"] = labels.study or os.environ.get("WANDB_RUN_GROUP") or labels.setting
    run = start_wandb(folder, given)
    return None if run is None else Wandb(folder, run)
