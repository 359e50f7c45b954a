"""TensorBoard's event files, by PyTorch's writer: ``tensorboard`` in the run's folder (``tensorboard --logdir runs``).

The settings are its hyper-parameters; HPARAMS compares runs by the accuracies at their ends.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat import tf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from kravl.tracking.settings import dotted
from kravl.tracking.trackers.sheet import contact_sheet
from kravl.tracking.trackers.tracker import ID, OOD, Numbers, RunLabels, Sample, Tracker, wise_ft_curve

FOLDER = "tensorboard"
COMPARED = (ID, OOD, "harmonic_mean")  # columns of HPARAMS, which have to be named when a run starts
PERCENT = 100  # of alpha: TensorBoard's axis is a whole number


class TensorBoard(Tracker):
    """Curves and histograms by step, the final numbers at the last one, and a sheet of test images."""

    kind = "tensorboard"
    title = "TensorBoard"
    failures = (OSError, ValueError, RuntimeError, tf.errors.OpError)  # the writer's thread may have ended

    def __init__(self, folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._writer = SummaryWriter(str(folder / FOLDER))
        self._end: Any = None
        settings = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in dotted(config)}
        compared, begin, self._end = hparams(settings, dict.fromkeys(COMPARED, 0))
        for summary in (compared, begin):
            self._writer._get_file_writer().add_summary(summary)
        self._writer.add_text("run", f"{labels.title}; {', '.join([*labels.tags, labels.study or labels.setting])}")
        self._writer.flush()

    @property
    def log_dir(self) -> str:
        return str(self._writer.log_dir)

    def write(self, metrics: Numbers, step: int | None) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def write_histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        for name, numbers in values.items():
            self._writer.add_histogram(name, np.asarray(numbers, dtype=np.float64), step)

    def final(self, metrics: Numbers) -> None:
        self.write(metrics, self.marks.last)

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        for point in wise_ft_curve(record):
            for name in (ID, OOD):
                if (value := point.get(name)) is not None:
                    self._writer.add_scalar(f"wise_ft_percent/{name}", value, round(PERCENT * point["alpha"]))

    def samples(self, name: str, rows: Sequence[Sample]) -> None:
        sheet = np.asarray(contact_sheet(rows))
        self._writer.add_image(f"samples/{name}", sheet, self.marks.last, dataformats="HWC")

    def close(self, failed: bool) -> None:
        self._writer._get_file_writer().add_summary(self._end)
        self._writer.close()


def start(folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker:
    """Event files in ``folder``/tensorboard."""
    return TensorBoard(folder, labels, config)
