"""Accuracy, per-class recall, F1 and calibration by set, and WiSE-FT's curve (https://arxiv.org/abs/2109.01903)."""

from collections.abc import Iterable, Mapping
from statistics import fmean, harmonic_mean
from typing import Protocol

import torch
from pytorch_lightning import Trainer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table
from torchmetrics.functional.classification import binary_calibration_error

from kravl.predictions import Classes, Classifier, Kept, Loaders, Predictions, predict
from kravl.runtime.errors import InputError

IN_DOMAIN = "test"  # the name of the set that the training data's own test split goes by
CALIBRATION_BINS = 15
MAX_KEPT = 1_000_000  # images whose features, a few kilobytes each, are kept in memory between alphas
COLUMNS = {"accuracy": "top-1", "per_class_recall": "recall", "macro_f1": "macro-F1", "ece": "ECE"}

Results = dict[str, dict[str, float]]  # set -> metric -> value


class Adapters(Protocol):
    """Weights W + alpha * update until `unmerge`: alpha 0 is the pretrained model, 1 the adapted one."""

    def merge(self, alpha: float = 1.0) -> None: ...
    def unmerge(self) -> None: ...


def score(predictions: Predictions) -> dict[str, float]:
    """Metrics of one set as fractions, beside the mean cross-entropy ``loss`` (nats) and the ``count`` of images.

    ``accuracy`` is top-1; ``per_class_recall`` and ``macro_f1`` are means over the classes that have images; ``ece`` is
    sum_b n_b/n |accuracy_b - confidence_b| over 15 bins of equal width (https://arxiv.org/abs/1706.04599).
    """
    _, labels, predicted, confidence, loss = predictions
    # counted by class: torchmetrics' stat scores are a table of images x classes^2 under deterministic algorithms
    num_classes = int(torch.maximum(labels, predicted).max()) + 1
    correct = predicted == labels
    support, said, hit = (
        torch.bincount(rows, minlength=num_classes).double() for rows in (labels, predicted, labels[correct])
    )
    tested = support > 0  # a class without images has no recall
    inside = confidence.double().clamp(max=1 - 1e-9)  # torchmetrics gives a confidence of exactly 1 a sixteenth bin
    return {
        "accuracy": correct.double().mean().item(),
        "per_class_recall": (hit / support)[tested].mean().item(),
        "macro_f1": (2 * hit / (said + support))[tested].mean().item(),
        "ece": binary_calibration_error(inside, correct.long(), n_bins=CALIBRATION_BINS).item(),
        "loss": loss.double().mean().item(),
        "count": len(labels),
    }


def wise_ft(
    trainer: Trainer,
    classifier: Classifier,
    adapters: Adapters,
    loaders: Loaders,
    classes: Classes,
    alphas: Iterable[float],
) -> dict[float, dict[str, Predictions]]:
    """Each set's predictions for weights between pretrained (alpha 0) and adapted (1), without training.

    Where alpha changes no image feature, as in a linear probe, the image tower runs once for all of them.

    Raises:
        InputError: an alpha lies outside [0, 1], or what `predict` raises; the weights are as they were.
    """
    chosen = list(alphas)
    for alpha in chosen:
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha {alpha} of the WiSE-FT curve is outside 0 (pretrained) to 1 (adapted)")
    curve: dict[float, dict[str, Predictions]] = {}
    num_images = sum(len(loader.dataset) for loader in loaders.values())  # type: ignore[arg-type, misc]
    again = len(chosen) > 1 and num_images <= MAX_KEPT and classifier.features_are_fixed()
    kept: Kept | None = {} if again else None
    for alpha in chosen:
        adapters.merge(alpha)
        try:
            curve[alpha] = predict(trainer, classifier, loaders, classes, kept)
        finally:
            adapters.unmerge()
    return curve


def summary(results: Results) -> dict[str, float | None]:
    """Top-1 in domain, its mean over the other sets, and the harmonic mean of the two; None without other sets."""
    in_domain = results[IN_DOMAIN]["accuracy"]
    others = [metrics["accuracy"] for name, metrics in results.items() if name != IN_DOMAIN]
    if not others:
        return {"in_domain": in_domain, "ood_mean": None, "harmonic_mean": None}
    ood_mean = fmean(others)
    return {"in_domain": in_domain, "ood_mean": ood_mean, "harmonic_mean": harmonic_mean([in_domain, ood_mean])}


def comparison_table(zero_shot: Results | None, adapted: Results) -> Table:
    """One row per set and summary, in percent; with zero-shot results each cell reads ``zero-shot → adapted``."""
    table = _table("percent" if zero_shot is None else "percent, zero-shot → adapted")
    table.add_column("set")
    for header in ("images", *COLUMNS.values()):
        table.add_column(header, justify="right")
    stages = [_rows(results) for results in (zero_shot, adapted) if results is not None]
    for name, metrics in stages[-1].items():
        cells = (
            " → ".join(f"{100 * stage[name][metric]:.1f}" for stage in stages) if metric in metrics else ""
            for metric in COLUMNS
        )
        images = f"{metrics['count']:.0f}" if name in adapted else ""
        table.add_row(escape(name), images, *cells, end_section=name == list(adapted)[-1])
    return table


def curve_table(curve: Mapping[float, Results]) -> Table:
    """One row per alpha of the WiSE-FT curve: top-1 of every set and the mean out of domain, in percent."""
    table = _table("top-1 in percent, from the pretrained (0) to the adapted model (1)")
    rows = {alpha: _rows(results) for alpha, results in curve.items()}
    sets = [name for name in next(iter(rows.values())) if name != "harmonic mean"]
    for header in ("alpha", *sets):
        table.add_column(escape(header), justify="right")
    for alpha, row in rows.items():
        table.add_row(f"{alpha:.2f}", *(f"{100 * row[name]['accuracy']:.1f}" for name in sets))
    return table


def _table(caption: str) -> Table:
    return Table(box=SIMPLE, pad_edge=False, collapse_padding=True, caption=caption)


def _rows(results: Results) -> dict[str, Mapping[str, float]]:
    overall = {"OOD mean": summary(results)["ood_mean"], "harmonic mean": summary(results)["harmonic_mean"]}
    return {**results, **{name: {"accuracy": value} for name, value in overall.items() if value is not None}}
