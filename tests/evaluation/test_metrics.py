"""Metrics equal formulas written out by hand; the WiSE-FT curve runs from the pretrained to the adapted model."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from rich.console import Console
from tiny_classifier import TinyClassifier, loader, logits_of, quiet_trainer
from torchmetrics.functional.classification import multiclass_stat_scores

from kravl.evaluation.console import comparison_table, curve_table
from kravl.evaluation.metrics import metric_names, score, summary
from kravl.evaluation.predict import Predictions, predict
from kravl.evaluation.wise_ft import curve_points, wise_ft
from kravl.runtime.errors import InputError


class TinyAdapters:
    """One update of a classifier's weight."""

    def __init__(self, classifier: TinyClassifier) -> None:
        self.classifier = classifier
        self.pretrained = classifier.weight.detach().clone()
        self.update = torch.randn_like(self.pretrained)

    def merge(self, alpha: float = 1.0) -> None:
        self.classifier.weight.data = self.pretrained + alpha * self.update

    def unmerge(self) -> None:
        self.classifier.weight.data = self.pretrained.clone()


@pytest.fixture
def trainer() -> Trainer:
    return quiet_trainer()


def predictions(labels: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    loss = torch.linspace(0, 1, len(labels))
    columns = (torch.arange(len(labels)), torch.tensor(labels), torch.tensor(predicted), torch.tensor(confidence), loss)
    return Predictions(*columns)


def random_predictions(count: int, num_classes: int) -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes - 2, size=count)  # the last two classes have no images, but are predicted
    predicted = np.where(rng.random(count) < 0.6, labels, rng.integers(num_classes, size=count))
    return predictions(labels.tolist(), predicted.tolist(), rng.uniform(0.1, 1, size=count).tolist())


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Within the block torch is asked for them, or not, whatever a run before has left."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.mark.parametrize(("count", "num_classes"), [(1, 3), (2, 3), (200, 7), (300, 250), (2_000, 1_000)])
def test_accuracy_recall_and_f1_are_those_of_scikit_learn_and_torchmetrics(count: int, num_classes: int) -> None:
    rows = random_predictions(count, num_classes)

    metrics = score(rows)

    labels, predicted = rows.labels.numpy(), rows.predicted.numpy()
    among = {"labels": np.unique(labels), "average": "macro", "zero_division": 0.0}  # classes that have images
    assert metrics["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted), abs=1e-15)
    assert metrics["per_class_recall"] == pytest.approx(sklearn.metrics.recall_score(labels, predicted, **among))
    assert metrics["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, **among))
    with deterministic_algorithms(False):  # else torchmetrics makes a table of images x classes^2
        scores = multiclass_stat_scores(rows.predicted, rows.labels, num_classes, average="none").double()
    hit, wrongly, _, missed, support = scores[scores[:, -1] > 0].unbind(dim=1)
    assert metrics["per_class_recall"] == (hit / support).mean().item()
    assert metrics["macro_f1"] == (2 * hit / (2 * hit + wrongly + missed)).mean().item()
    assert metrics["loss"] == pytest.approx(rows.loss.numpy().mean())
    assert metrics["count"] == count


def test_a_test_set_as_large_as_imagenets_is_scored_under_deterministic_algorithms() -> None:
    rows = random_predictions(count=50_000, num_classes=1_000)
    with deterministic_algorithms(True):  # as the default trainer.deterministic=warn
        metrics = score(rows)  # a table of images x classes^2 would take 400 GB

    assert metrics == score(rows)


def test_recall_counts_classes_and_accuracy_counts_images() -> None:
    rows = predictions([0, 0, 0, 2], [0, 0, 0, 1], [0.9] * 4)

    metrics = score(rows)

    assert metrics["accuracy"] == 0.75
    assert metrics["per_class_recall"] == 0.5  # class 0: 1, class 2: 0; class 1 has no images


def test_a_set_of_one_class_has_metrics() -> None:
    metrics = score(predictions([0, 0], [0, 0], [1.0, 1.0]))

    assert (metrics["accuracy"], metrics["per_class_recall"], metrics["macro_f1"]) == (1, 1, 1)


def test_calibration_error_equals_the_sum_over_fifteen_bins() -> None:
    rows = random_predictions(count=500, num_classes=7)

    ece = score(rows)["ece"]

    confidence, correct = rows.confidence.double().numpy(), (rows.labels == rows.predicted).numpy()
    expected = 0.0
    for b in range(15):
        inside = (confidence >= b / 15) & (confidence < (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert ece == pytest.approx(expected, abs=1e-12)


def test_a_confidence_of_one_shares_the_last_bin() -> None:
    rows = predictions([0, 0], [1, 0], [1.0, 0.95])

    ece = score(rows)["ece"]

    assert ece == pytest.approx(abs(0.5 - 0.975), abs=1e-6)  # apart: 0.5 * 1 + 0.5 * 0.05


def test_a_classifier_is_scored_on_every_set(trainer: Trainer) -> None:
    torch.manual_seed(0)
    classifier, labels = TinyClassifier(num_classes=4), [0, 1] * 10
    data = loader(labels)

    sets = predict(trainer, classifier, {"test": data, "two": data}, {"test": None, "two": (1, 3)})
    results = {name: score(rows) for name, rows in sets.items()}

    logits, targets = logits_of(classifier, data), torch.tensor(labels)
    assert results["test"]["accuracy"] == pytest.approx((logits.argmax(1) == targets).double().mean().item())
    assert results["two"]["accuracy"] == pytest.approx((logits[:, (1, 3)].argmax(1) == targets).double().mean().item())
    assert [f"test/{metric}" for metric in results["two"]] == metric_names([])[:-1]


def test_the_curve_runs_from_the_pretrained_to_the_adapted_model(trainer: Trainer) -> None:
    torch.manual_seed(0)
    classifier = TinyClassifier(num_classes=4)
    adapters = TinyAdapters(classifier)
    arguments = ({"test": loader([0, 1, 2, 3] * 10)}, {"test": None})

    def accuracy_and_loss() -> dict[str, float]:
        return score(predict(trainer, classifier, *arguments)["test"])

    zero_shot = accuracy_and_loss()

    curve = wise_ft(trainer, classifier, adapters, *arguments, alphas=(0, 0.5, 1))

    assert torch.equal(classifier.weight, adapters.pretrained)
    assert list(curve) == [0, 0.5, 1]
    assert score(curve[0]["test"]) == zero_shot
    for alpha in (0.5, 1):
        classifier.weight.data = adapters.pretrained + alpha * adapters.update
        assert score(curve[alpha]["test"]) == accuracy_and_loss()
        assert score(curve[alpha]["test"]) != zero_shot


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_an_alpha_outside_the_line_is_refused_before_any_work(trainer: Trainer, alpha: float) -> None:
    classifier = TinyClassifier(num_classes=2)

    with pytest.raises(InputError, match=f"alpha {alpha} of the WiSE-FT curve is outside 0"):
        wise_ft(trainer, classifier, TinyAdapters(classifier), {}, {}, alphas=[0, alpha])


def test_points_of_the_curve_are_a_number_or_a_list_of_shares() -> None:
    assert curve_points(1, zero_shot=True) == [1.0]
    assert curve_points(3, zero_shot=True) == [0.0, 0.5, 1.0]
    assert curve_points(3, zero_shot=False) == [0.5, 1.0]
    assert curve_points([1, 0.3, 0], zero_shot=True) == [0.0, 0.3, 1.0]
    assert curve_points(OmegaConf.create([0.5, 1.0]), zero_shot=True) == [0.5, 1.0]


@pytest.mark.parametrize("points", [0, -1, 2.5, True, "eleven", [0, 0.5], [1, 1.5], [1, "x"], [], None])
def test_what_is_no_number_or_list_of_shares_is_refused(points: Any) -> None:
    with pytest.raises(InputError, match=re.escape(f"alphas={points}; 1 evaluates the adapted model only")):
        curve_points(points, zero_shot=True)


def test_weights_are_restored_when_an_evaluation_fails(trainer: Trainer) -> None:
    classifier = TinyClassifier(num_classes=2)
    adapters = TinyAdapters(classifier)

    with pytest.raises(InputError, match="label 7"):
        wise_ft(trainer, classifier, adapters, {"test": loader([7])}, {"test": None}, alphas=[1])

    assert torch.equal(classifier.weight, adapters.pretrained)


def test_the_summary_averages_the_other_sets() -> None:
    results = {"test": {"accuracy": 0.8}, "sketch": {"accuracy": 0.5}, "v2": {"accuracy": 0.3}}

    assert summary(results) == {"in_domain": 0.8, "ood_mean": 0.4, "harmonic_mean": pytest.approx(2 * 0.32 / 1.2)}
    assert summary({"test": {"accuracy": 0.8}}) == {"in_domain": 0.8, "ood_mean": None, "harmonic_mean": None}
    assert summary({"test": {"accuracy": 0.0}, "v2": {"accuracy": 0.0}})["harmonic_mean"] == 0


def printed(zero_shot: dict | None, adapted: dict) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(comparison_table(zero_shot, adapted))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def full(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "per_class_recall": 0.25, "macro_f1": 0.125, "ece": 0.0625, "loss": 2.0, "count": 10}


def test_the_table_puts_zero_shot_beside_adapted_in_percent() -> None:
    lines = printed({"test": full(0.5), "[v2]": full(0.25)}, {"test": full(0.75), "[v2]": full(0.5)})

    assert "test 10 50.0 → 75.0 25.0 → 25.0 12.5 → 12.5 6.2 → 6.2" in lines
    assert "[v2] 10 25.0 → 50.0 25.0 → 25.0 12.5 → 12.5 6.2 → 6.2" in lines
    assert "OOD mean 25.0 → 50.0" in lines
    assert "harmonic mean 33.3 → 60.0" in lines


def test_the_table_of_one_set_without_zero_shot_has_no_summary_rows() -> None:
    lines = printed(None, {"test": full(0.75)})

    assert "test 10 75.0 25.0 12.5 6.2" in lines
    assert not any("mean" in line for line in lines)


def test_the_curve_is_printed_by_alpha() -> None:
    results = {alpha: {"test": full(0.5 + alpha / 4), "[v2]": full(0.25)} for alpha in (0.0, 0.5, 1.0)}
    out = io.StringIO()

    Console(file=out, width=80).print(curve_table(results))

    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "alpha test [v2] OOD mean" in lines
    assert "0.50 62.5 25.0 25.0" in lines
