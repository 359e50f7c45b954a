"""Metrics of predictions: accuracy, per-class recall, macro-F1, calibration."""

from collections.abc import Iterable
from statistics import fmean, harmonic_mean

import torch
from torchmetrics.functional.classification import binary_calibration_error

from kravl.evaluation.predict import Predictions

IN_DOMAIN = "test"  # the name of the training set's own test split among the evaluated sets
CALIBRATION_BINS = 15

OF_A_SET = ("accuracy", "per_class_recall", "macro_f1", "ece", "loss", "count")

Results = dict[str, dict[str, float]]  # set -> metric -> value


def metric_names(others: Iterable[str]) -> list[str]:
    """The metrics of a run that is evaluated in domain and on the sets ``others``, as its record names them."""
    others = list(others)
    over_sets = ["in_domain", "ood_mean", "harmonic_mean"] if others else ["in_domain"]
    return [f"{name}/{metric}" for name in (IN_DOMAIN, *others) for metric in OF_A_SET] + over_sets


def score(predictions: Predictions) -> dict[str, float]:
    """Metrics of one set as fractions, the mean cross-entropy ``loss`` (nats) and the ``count`` of images.

    ``accuracy`` is top-1; ``per_class_recall`` and ``macro_f1`` are means over the classes that have images; ``ece`` is
    sum_b n_b/n |accuracy_b - confidence_b| over 15 bins of equal width (https://arxiv.org/abs/1706.04599).
    """
    _, labels, predicted, confidence, loss = predictions
    # counted per class: with deterministic algorithms, torchmetrics builds a table of images x classes^2
    num_classes = int(torch.maximum(labels, predicted).max()) + 1
    correct = predicted == labels
    support, predictions_per_class, hits = (
        torch.bincount(rows, minlength=num_classes).double() for rows in (labels, predicted, labels[correct])
    )
    tested = support > 0  # a class without images has no recall
    clamped = confidence.double().clamp(max=1 - 1e-9)  # torchmetrics puts a confidence of exactly 1 in a 16th bin
    return {
        "accuracy": correct.double().mean().item(),
        "per_class_recall": (hits / support)[tested].mean().item(),
        "macro_f1": (2 * hits / (predictions_per_class + support))[tested].mean().item(),
        "ece": binary_calibration_error(clamped, correct.long(), n_bins=CALIBRATION_BINS).item(),
        "loss": loss.double().mean().item(),
        "count": len(labels),
    }


def summary(results: Results) -> dict[str, float | None]:
    """Top-1 in domain, its mean over the other sets, and the harmonic mean of the two; None without other sets."""
    in_domain = results[IN_DOMAIN]["accuracy"]
    others = [metrics["accuracy"] for name, metrics in results.items() if name != IN_DOMAIN]
    if not others:
        return {"in_domain": in_domain, "ood_mean": None, "harmonic_mean": None}
    ood_mean = fmean(others)
    return {"in_domain": in_domain, "ood_mean": ood_mean, "harmonic_mean": harmonic_mean([in_domain, ood_mean])}


DIGITS = 4  # of a probability: a figure shows no more


def reliability(predictions: Predictions) -> list[list[float]]:
    """One row (images, mean confidence, accuracy) for each non-empty one of 15 confidence bins of equal width.

    The bars of a reliability diagram (https://arxiv.org/abs/1706.04599); ``ece`` is their weighted gap.
    """
    confidence = predictions.confidence.double()
    correct = (predictions.predicted == predictions.labels).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    count, confidence_sum, num_correct = (
        torch.bincount(bins, weight, minlength=CALIBRATION_BINS)
        for weight in (torch.ones_like(confidence), confidence, correct)
    )
    rows = torch.stack([count, confidence_sum / count, num_correct / count], dim=1)[count > 0].tolist()
    return [[int(images), round(mean, DIGITS), round(accuracy, DIGITS)] for images, mean, accuracy in rows]
