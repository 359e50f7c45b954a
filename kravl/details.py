"""What a run keeps beside its metrics: reliability by set, hits by class, and each test image's prediction."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kravl.evaluation.metrics import CALIBRATION_BINS, IN_DOMAIN
from kravl.evaluation.predict import Predictions
from kravl.runtime.files import write_whole

DETAILS, IMAGES = "details.json", "predictions.csv"
MODELS = {1.0: "adapted", 0.0: "zero_shot"}  # by alpha: what is kept; the points between are metrics only
DIGITS = 4  # of a probability: a picture shows no more


def reliability(predictions: Predictions) -> list[list[float]]:
    """One row (images, mean confidence, accuracy) for each of 15 bins of confidence of equal width that has images.

    The bars of a reliability diagram (https://arxiv.org/abs/1706.04599); ``ece`` is their weighted distance.
    """
    confidence = predictions.confidence.double()
    correct = (predictions.predicted == predictions.labels).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    count, sure, right = (
        torch.bincount(bins, weight, minlength=CALIBRATION_BINS)
        for weight in (torch.ones_like(confidence), confidence, correct)
    )
    rows = torch.stack([count, sure / count, right / count], dim=1)[count > 0].tolist()
    return [[int(images), round(mean, DIGITS), round(hit, DIGITS)] for images, mean, hit in rows]


def write_details(
    folder: Path, evaluation: str, curve: Mapping[float, Mapping[str, Predictions]], class_names: Sequence[str]
) -> dict[str, Any]:
    """Write details.json and predictions.csv to ``folder``; returns what is in details.json.

    Args:
        evaluation: the name that its sets go by together.
        curve: alpha -> set -> predictions, of which the adapted model's (1) and, if it is there, zero-shot's (0) count.
        class_names: of the set ``test``.
    """
    kept = {model: curve[alpha] for alpha, model in MODELS.items() if alpha in curve}
    tests = {model: sets[IN_DOMAIN] for model, sets in kept.items()}
    labels = tests["adapted"].labels
    details: dict[str, Any] = {
        "schema": 1,
        "evaluation": evaluation,
        "class_names": list(class_names),
        "images": _count(labels, len(class_names)),
        "hits": {model: _count(labels[rows.predicted == labels], len(class_names)) for model, rows in tests.items()},
        "reliability": {m: {name: reliability(rows) for name, rows in sets.items()} for m, sets in kept.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / DETAILS, json.dumps(details, sort_keys=True) + "\n")
    write_whole(folder / IMAGES, _images(tests))
    return details


def _count(labels: torch.Tensor, classes: int) -> list[int]:
    return torch.bincount(labels, minlength=classes).tolist()


def _images(tests: Mapping[str, Predictions]) -> str:
    """One line per image: its index and class, then what each model says and how sure it is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", *(f"{model}_{what}" for model in tests for what in ("predicted", "confidence"))])
    first = tests["adapted"]
    columns: list[list[Any]] = [first.indices.tolist(), first.labels.tolist()]
    for rows in tests.values():
        columns += [rows.predicted.tolist(), [round(value, DIGITS) for value in rows.confidence.tolist()]]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
