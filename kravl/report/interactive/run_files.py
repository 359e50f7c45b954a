"""The files beside runs' metrics, averaged over a group: reliability, recall by class, learning curve."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from kravl.report.groups import Group
from kravl.report.runs import FinishedRun
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json
from kravl.tracking.records import is_number, odd_values
from kravl.tracking.run_folder import ZERO_SHOT

BINS = 15  # as in kravl.run.results
MAX_POINTS = 100  # of a learning curve
Content = Mapping[str, Any]


def details_folder(run: FinishedRun) -> Path:
    """The folder of the evaluation's details.json and predictions.csv, if there are any."""
    name = Path(run.record["evaluation"]).name  # a record may come from anywhere: no path in it is followed
    later = run.folder / "evaluations" / name
    return later if name and later.is_dir() else run.folder


def model_key(group: Group, names: Mapping[str, Any]) -> str | None:
    """Which of the models in a file is the group's."""
    key = "zero_shot" if group.method == ZERO_SHOT and "zero_shot" in names else "adapted"
    return key if key in names else None


class RunFiles:
    """Reads each file once; one that no run could have written is a line in ``problems`` and treated as missing."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._read = cache(self._read_once)

    def details(self, run: FinishedRun) -> Content | None:
        details = self._read(details_folder(run) / "details.json", _check_details)
        return details if details and details["evaluation"] == run.record["evaluation"] else None

    def curve(self, run: FinishedRun) -> Content | None:
        return self._read(run.folder / "curve.json", _check_curve)

    def _read_once(self, path: Path, check: Callable[[Any], None]) -> Content | None:
        if not path.exists():
            return None
        try:
            content = read_json(path)
            if odd := next(odd_values(content), None):
                raise InputError(odd)
            check(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.problems.append(f"left out {path}: {type(error).__name__} {error}")
            return None
        return content

    def reliability(self, group: Group) -> dict[str, list[list[float]]]:
        """Set -> rows (images, mean confidence, accuracy) by bin of confidence, over all runs."""
        sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
        for details in filter(None, map(self.details, group.runs)):
            if key := model_key(group, details["reliability"]):
                for name, rows in details["reliability"][key].items():
                    for images, confidence, accuracy in rows:
                        total = sums[name][min(int(confidence * BINS), BINS - 1)]
                        for i, value in enumerate((images, images * confidence, images * accuracy)):
                            total[i] += value
        return {
            name: [[n, round(sure / n, 4), round(hits / n, 4)] for _, (n, sure, hits) in sorted(bins.items())]
            for name, bins in sums.items()
        }

    def recall(self, group: Group, class_names: Sequence[str]) -> list[float | None]:
        """The recall of each class, averaged over the runs; None for a class without test images."""
        recalls = []
        for details in filter(None, map(self.details, group.runs)):
            key = model_key(group, details["hits"])
            if key and details["class_names"] == class_names:
                pairs = zip(details["hits"][key], details["images"], strict=True)
                recalls.append([hits / images if images else None for hits, images in pairs])
        columns = zip(*recalls, strict=True)
        return [
            round(fmean(known), 4) if (known := [v for v in column if v is not None]) else None for column in columns
        ]

    def learning_curve(self, group: Group) -> list[list[float]]:
        """Rows (step, loss), the loss averaged over the runs with the same steps as the first; at most 100."""
        curves = [curve for run in group.runs if group.method != ZERO_SHOT and (curve := self.curve(run))]
        same = [curve["loss"] for curve in curves if curve["step"] == curves[0]["step"]]
        if not same:
            return []
        rows = [[step, round(fmean(values), 4)] for step, *values in zip(curves[0]["step"], *same, strict=True)]
        stride = -(-len(rows) // MAX_POINTS)
        return rows[::-1][::stride][::-1]  # always includes the last step


def _check_details(content: Any) -> None:
    classes = len(content["class_names"])
    counts = [content["images"], *content["hits"].values()]
    if any(len(each) != classes or not all(type(n) is int and n >= 0 for n in each) for each in counts):
        raise InputError(f"its counts are not for {classes} classes")
    if any(hit > images for hits in counts[1:] for hit, images in zip(hits, counts[0], strict=True)):
        raise InputError("it has more hits than images")
    rows = [row for sets in content["reliability"].values() for rows in sets.values() for row in rows]
    if not all(is_number(n) and n > 0 and 0 <= sure <= 1 and 0 <= right <= 1 for n, sure, right in rows):
        raise InputError("its reliability is not in fractions")
    if not all(isinstance(name, str) for name in (content["evaluation"], *content["class_names"])):
        raise InputError("its names are not text")


def _check_curve(content: Any) -> None:
    if len(content["step"]) != len(content["loss"]) or not all(
        is_number(value) for name in ("step", "loss") for value in content[name]
    ):
        raise InputError("steps and losses do not match")
