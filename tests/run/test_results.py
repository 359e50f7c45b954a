"""What a run keeps of its predictions agrees with the metrics that it reports."""

import csv
import json
from pathlib import Path

import pytest
import torch

from kravl.evaluation.metrics import reliability, score
from kravl.evaluation.predict import Predictions
from kravl.run.results import write_details


def predictions(count: int = 200, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    predicted = torch.where(torch.rand(count, generator=generator) < 0.6, labels, (labels + 1) % 4)
    confidence = torch.rand(count, generator=generator)
    return Predictions(torch.arange(count), labels, predicted, confidence, torch.ones(count))


def test_reliability_by_hand() -> None:
    confidence = torch.tensor([0.1, 0.12, 0.9, 1.0])
    rows = Predictions(torch.arange(4), torch.zeros(4).long(), torch.tensor([0, 1, 0, 0]), confidence, torch.ones(4))

    assert reliability(rows) == [[2, pytest.approx(0.11), 0.5], [1, pytest.approx(0.9), 1.0], [1, 1.0, 1.0]]


def test_reliability_gives_the_calibration_error_of_the_metrics() -> None:
    rows = predictions()

    error = sum(n * abs(sure - right) for n, sure, right in reliability(rows)) / len(rows.labels)

    assert error == pytest.approx(score(rows)["ece"], abs=1e-4)  # rows are rounded to four digits


def test_counts_and_images_of_both_models_are_written_the_same_each_time(tmp_path: Path) -> None:
    adapted, pretrained = predictions(seed=0), predictions(seed=1)
    curve = {0.0: {"test": pretrained, "sketch": pretrained}, 0.5: {"test": adapted}, 1.0: {"test": adapted}}
    names = ["a", "b", "c", "d", "never seen"]

    images = [f"{names[i % 4]}/{i}, \udce9.png" for i in range(200)]
    written = write_details(tmp_path / "x", "shifts", curve, names, images)
    write_details(tmp_path / "y", "shifts", curve, names, images)

    assert written == json.loads((tmp_path / "x/details.json").read_text())
    for name in ("details.json", "predictions.csv"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
    assert (written["evaluation"], written["class_names"], written["images"]) == ("shifts", names, [50, 50, 50, 50, 0])
    for model, rows in (("adapted", adapted), ("zero_shot", pretrained)):
        assert sum(written["hits"][model]) / 200 == pytest.approx(score(rows)["accuracy"])
    assert {model: set(sets) for model, sets in written["reliability"].items()} == {
        "adapted": {"test"},
        "zero_shot": {"test", "sketch"},
    }
    with (tmp_path / "x/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["adapted_predicted"]) for row in rows] == adapted.predicted.tolist()
    assert [int(row["zero_shot_predicted"]) for row in rows] == pretrained.predicted.tolist()
    assert [row["path"] for row in rows] == [image.replace("\udce9", "\\udce9") for image in images]
    assert [row["label_name"] for row in rows] == [names[i % 4] for i in range(200)]
    for model, said in (("adapted", adapted), ("zero_shot", pretrained)):
        assert [row[f"{model}_predicted_name"] for row in rows] == [names[i] for i in said.predicted.tolist()]
    assert float(rows[7]["adapted_confidence"]) == pytest.approx(adapted.confidence[7].item(), abs=1e-4)


def test_a_model_without_zero_shot_keeps_the_adapted_one_alone(tmp_path: Path) -> None:
    written = write_details(tmp_path, "in_domain", {1.0: {"test": predictions()}}, list("abcd"), ["x.png"] * 200)

    assert set(written["hits"]) == {"adapted"}
    first, *_ = (tmp_path / "predictions.csv").read_text().splitlines()
    assert first == "index,label,adapted_predicted,adapted_confidence,path,label_name,adapted_predicted_name"
