"""Files of comma-separated values, by Lightning's CSVLogger: ``csv/version_<number>`` in the run's folder."""

import csv
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger

from kravl.runtime.own_files import create_own
from kravl.tracking.trackers.tracker import Numbers, RunLabels, Tracker

FOLDER = "csv"


class Csv(Tracker):
    """metrics.csv by step, hparams.yaml and, at the end, summary.csv; a resumed run goes on with the rows it had."""

    kind = "csv"
    title = "CSV"
    failures = (OSError, ValueError, csv.Error)

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        earlier = list(folder.glob(f"{FOLDER}/version_*"))
        self._files = CSVLogger(folder, name=FOLDER)
        self._files.log_hyperparams(dict(config))
        self._files.experiment.metrics = [row for each in earlier for row in _rows(each / "metrics.csv")]
        self._files.save()
        for each in earlier:
            shutil.rmtree(each)

    @property
    def log_dir(self) -> str:
        return self._files.log_dir

    def write(self, metrics: Numbers, step: int | None) -> None:
        self._files.log_metrics(dict(metrics), step)
        self._files.save()

    def final(self, metrics: Numbers) -> None:
        self._files.save()
        with os.fdopen(create_own(Path(self._files.log_dir, "summary.csv")), "w", newline="") as file:
            csv.writer(file).writerows([("metric", "value"), *metrics.items()])


def _rows(file: Path) -> list[dict[str, Any]]:
    """What an earlier process wrote, without the columns that a row has no number in."""
    if not file.is_file():
        return []
    with file.open(newline="") as content:
        return [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(content)]


def start(folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker:
    """Files in ``folder``/csv."""
    return Csv(folder, config)
