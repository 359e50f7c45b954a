"""Predictions follow the sets, the class subsets and the weights, whatever the batches."""

import pytest
import torch
from pytorch_lightning import Trainer
from tiny_classifier import TinyClassifier, image_set, loader, logits_of, quiet_trainer
from torch.utils.data import DataLoader

from kravl.evaluation.predict import predict
from kravl.runtime.errors import InputError


@pytest.fixture
def classifier() -> TinyClassifier:
    torch.manual_seed(0)
    return TinyClassifier(num_classes=5)


@pytest.fixture
def trainer() -> Trainer:
    return quiet_trainer()


def test_every_image_has_its_row_when_the_last_batch_is_not_full(classifier: TinyClassifier, trainer: Trainer) -> None:
    data = loader([0, 1, 2, 3, 4, 0, 1])

    rows = predict(trainer, classifier, {"test": data}, {"test": None})["test"]

    logits = logits_of(classifier, data)
    assert rows.indices.tolist() == list(range(7))
    assert rows.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert rows.predicted.tolist() == logits.argmax(1).tolist()
    torch.testing.assert_close(rows.confidence, (logits.exp() / logits.exp().sum(1, keepdim=True)).amax(1))
    torch.testing.assert_close(rows.loss, logits.logsumexp(1) - logits[range(7), rows.labels])


def test_the_size_of_the_batches_changes_nothing(classifier: TinyClassifier, trainer: Trainer) -> None:
    labels = [4, 3, 2, 1, 0, 0, 1]

    runs = [predict(trainer, classifier, {"test": loader(labels, size)}, {"test": None}) for size in (1, 3, 7)]

    for run in runs[1:]:
        for values, expected in zip(run["test"], runs[0]["test"], strict=True):
            torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


def test_a_class_subset_competes_among_its_own_columns(classifier: TinyClassifier, trainer: Trainer) -> None:
    data = {"test": loader([0, 1, 2]), "a.subset": loader([0, 1, 1, 0], seed=1)}

    rows = predict(trainer, classifier, data, {"test": None, "a.subset": (3, 1)})["a.subset"]

    logits = logits_of(classifier, data["a.subset"])
    first_wins = logits[:, 3] > logits[:, 1]
    assert rows.predicted.tolist() == [0 if first else 1 for first in first_wins]
    torch.testing.assert_close(rows.confidence, (logits[:, 3] - logits[:, 1]).abs().sigmoid())


def test_of_several_columns_that_stand_for_a_class_the_best_counts(
    classifier: TinyClassifier, trainer: Trainer
) -> None:
    data = {"test": loader([0, 1, 1, 0, 1])}

    rows = predict(trainer, classifier, data, {"test": ((3, 1, 4), (2,))})["test"]

    logits = logits_of(classifier, data["test"])
    best = torch.stack([logits[:, [3, 1, 4]].amax(1), logits[:, 2]], dim=1)
    assert rows.predicted.tolist() == best.argmax(1).tolist()
    torch.testing.assert_close(rows.confidence, best.softmax(1).amax(1))


def test_rows_come_in_the_order_of_the_set_and_once_each(classifier: TinyClassifier, trainer: Trainer) -> None:
    data = image_set([0, 1, 2, 3])
    repeating = DataLoader(data, batch_size=2, sampler=[3, 1, 0, 2, 1, 3])  # as a distributed sampler pads

    rows = predict(trainer, classifier, {"test": repeating}, {"test": None})["test"]

    expected = predict(trainer, classifier, {"test": DataLoader(data, batch_size=2)}, {"test": None})["test"]
    for values, reference in zip(rows, expected, strict=True):
        assert torch.equal(values, reference)


def test_the_weights_of_the_moment_are_what_is_evaluated(classifier: TinyClassifier, trainer: Trainer) -> None:
    data = loader([0, 1, 2])
    predict(trainer, classifier, {"test": data}, {"test": None})
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight.roll(1, dims=0))

    rows = predict(trainer, classifier, {"test": data}, {"test": None})["test"]

    assert rows.predicted.tolist() == logits_of(classifier, data).argmax(1).tolist()


def test_evaluation_leaves_a_classifier_that_can_train(classifier: TinyClassifier, trainer: Trainer) -> None:
    classifier.train()

    predict(trainer, classifier, {"test": loader([0])}, {"test": None})

    assert classifier.dropout.training
    mixed = (classifier.weight * classifier.features).sum()  # an inference tensor cannot be saved for backward
    mixed.backward()
    assert torch.equal(classifier.weight.grad, classifier.features)


@pytest.mark.parametrize(
    ("labels", "columns", "message"),
    [
        ([0, 1, 5], None, "evaluation set 'test': image 2 has label 5; its classes are 0 to 4"),
        ([0, -1], None, "evaluation set 'test': image 1 has label -1; its classes are 0 to 4"),
        ([2, 0], (4, 0), "evaluation set 'test': image 0 has label 2; its classes are 0 to 1"),
        ([], None, "evaluation set 'test' has no images"),
    ],
)
def test_a_label_outside_the_classes_is_named(
    classifier: TinyClassifier, trainer: Trainer, labels: list[int], columns: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        predict(trainer, classifier, {"test": loader(labels)}, {"test": columns})


def test_logits_that_are_not_finite_are_an_error_that_names_the_image(
    classifier: TinyClassifier, trainer: Trainer
) -> None:
    data = loader([0, 1, 2, 3])
    data.dataset.tensors[0][3] = torch.nan

    with pytest.raises(FloatingPointError, match="evaluation set 'test': the logits of image 3 are not finite"):
        predict(trainer, classifier, {"test": data}, {"test": None})


def test_a_set_of_one_image_has_one_row(classifier: TinyClassifier, trainer: Trainer) -> None:
    rows = predict(trainer, classifier, {"test": loader([3])}, {"test": None})["test"]

    assert [column.shape for column in rows] == [(1,)] * 5


def test_sample_rows_are_spread_over_the_set(classifier: TinyClassifier, trainer: Trainer) -> None:
    rows = predict(trainer, classifier, {"test": loader([0, 1, 2, 3, 4])}, {"test": None})["test"]

    assert [(index, label) for index, label, _, _ in rows.sample(3)] == [(0, 0), (2, 2), (4, 4)]
    assert len(rows.sample(99)) == 5
    assert rows.sample(1)[0] == (0, 0, rows.predicted[0].item(), rows.confidence[0].item())
