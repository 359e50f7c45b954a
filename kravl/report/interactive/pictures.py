"""Test images that one method gets right and another wrong, if the data set is on this disk."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from kravl.report.groups import Group
from kravl.report.interactive.run_files import details_folder
from kravl.report.runs import FinishedRun
from kravl.runtime.errors import InputError
from kravl.runtime.files import refuse_endless
from kravl.tracking.run_folder import ZERO_SHOT

PER_PAIR = 4  # images that one gets right and the other wrong
MAX_IMAGES = 120  # per setting
SIDE = 112  # pixels
QUALITY = 80  # of a JPEG
MOST_DIGITS = 12  # of the number of an image


class MethodPredictions(NamedTuple):
    """One method's predictions for the test images: index -> (label, predicted, confidence)."""

    run: FinishedRun
    rows: Mapping[int, tuple[int, int, float]]

    def right(self, index: int) -> bool:
        label, predicted, _ = self.rows[index]
        return label == predicted


def disagreements(groups: Sequence[Group], problems: list[str]) -> dict[str, Any] | None:
    """Pictures for the setting of ``groups``, from each method's first seed at the largest number of shots.

    Returns:
        ``shots``, the ``methods``, ``counts`` of images by who is right (row) and wrong (column), and ``images``;
        None if fewer than two methods have predictions, or their images cannot be read (a line in ``problems``).
    """
    trained = [group for group in groups if group.method != ZERO_SHOT]
    shots = max((group.shots for group in trained if group.shots is not None), default=None)
    last = [group for group in trained if group.shots == shots]
    setting = ", ".join(groups[0].setting)
    by_method: dict[str, MethodPredictions] = {}
    for group in last:
        if models := _read(group.runs[0], problems):
            by_method[group.method] = models["adapted"]
            by_method |= {ZERO_SHOT: models["zero_shot"]} if "zero_shot" in models else {}
    if len(by_method) < 2:
        return None
    first = next(iter(by_method.values()))
    same = {name: each for name, each in by_method.items() if _labels(each) == _labels(first)}
    pairs = {(a, b): _between(same[a], same[b]) for a, b in permutations(same, 2)}
    chosen = sorted({index for indices in pairs.values() for index in _spread(indices, PER_PAIR)})
    try:
        images = _images(first.run, _spread(chosen, MAX_IMAGES))
    except (InputError, OSError) as error:
        problems.append(f"{setting}: pictures are left out, as the data set cannot be read: {error}")
        return None
    shown = [
        {"label": first.rows[i][0], "says": {name: each.rows[i][1:] for name, each in same.items()}, "source": source}
        for i, source in images.items()
    ]
    counts = {a: {b: len(pairs[a, b]) for b in same if b != a} for a in same}
    return {"shots": last[0].amount, "methods": list(same), "counts": counts, "images": shown}


def _read(run: FinishedRun, problems: list[str]) -> dict[str, MethodPredictions] | None:
    path = details_folder(run) / "predictions.csv"
    models: dict[str, dict[int, tuple[int, int, float]]] = {"adapted": {}, "zero_shot": {}}
    try:
        refuse_endless(path)
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, rows in models.items():
                    if f"{name}_predicted" in row:
                        index, label, said = (_number(row[key]) for key in ("index", "label", f"{name}_predicted"))
                        if not 0 <= (confidence := float(row[f"{name}_confidence"])) <= 1:
                            raise InputError(f"a confidence of {confidence}")
                        rows[index] = label, said, confidence
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        problems.append(f"left out {path}: {type(error).__name__} {error}")
        return None
    return {name: MethodPredictions(run, rows) for name, rows in models.items() if rows} if models["adapted"] else None


def _number(text: str) -> int:
    """Of an image or a class."""
    if not (text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS):
        raise InputError(f"{text[:80]!r} is not the number of an image or a class")
    return int(text)


def _labels(predictions: MethodPredictions) -> dict[int, int]:
    return {index: label for index, (label, *_) in predictions.rows.items()}


def _between(one: MethodPredictions, other: MethodPredictions) -> list[int]:
    return [index for index in one.rows if one.right(index) and not other.right(index)]


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """``count`` of the ``indices`` at equal steps, so that none is hand-picked."""
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def _images(run: FinishedRun, indices: Sequence[int]) -> dict[int, str]:
    """Index -> the picture as a data URL. Raises InputError or OSError if the data set is not on this disk."""
    if not (run.folder / "config.yaml").is_file():
        raise InputError(f"no config.yaml in {run.folder}")
    from kravl.run.build import tested_images  # loads torch
    from kravl.run.finished.saved import saved_config
    from kravl.tracking.run_folder import RunFolder

    # never load a plugin package named in a file
    samples = tested_images(saved_config(RunFolder(Path(run.folder)), {"plugins": []}))
    if indices and max(indices) >= len(samples):
        raise InputError(f"it has {len(samples)} test images and the run predicted image {max(indices)}")
    return {index: _encoded(samples.image(index)) for index in indices}


def _encoded(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
