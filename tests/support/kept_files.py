"""Run folders with what a run keeps beside its metrics, for the tests of the page that compares runs."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_records import accuracies, write_run

CLASSES = ("cat", "dog", "owl")
LABELS = (0, 0, 1, 1, 2, 2)


def write_kept(folder: Path, said: Mapping[str, Sequence[int]], evaluation: str = "in_domain") -> None:
    """details.json, predictions.csv and curve.json of models that ``said`` these classes of the six test images."""
    hits = {
        model: [sum(p == i == label for p, label in zip(each, LABELS, strict=True)) for i in range(3)]
        for model, each in said.items()
    }
    bins = {model: {"test": [[2, 0.3, 0.5], [4, 0.9, 0.75]]} for model in said}
    details = {"schema": 1, "evaluation": evaluation, "class_names": CLASSES, "images": [2, 2, 2], "hits": hits}
    (folder / "details.json").write_text(json.dumps({**details, "reliability": bins}))
    (folder / "curve.json").write_text(json.dumps({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "lr": [1, 1, 0]}))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", *(f"{m}_{w}" for m in said for w in ("predicted", "confidence"))])
        for i, label in enumerate(LABELS):
            writer.writerow([i, label, *(value for each in said.values() for value in (each[i], 0.75))])


METHODS = ("kra", "lora", "linear_probe")


def write_grid(folder: Path, methods: Sequence[str] = METHODS, shots: Sequence[int] = (1, 4), **changes: Any) -> None:
    """One run for each method, number of shots and two seeds, in and out of domain, zero-shot and WiSE-FT with it."""
    for m, method in enumerate(methods):
        for count in shots:
            for seed in (1, 2):
                value = 0.4 + 0.1 * count / max(shots) + 0.02 * m + 0.01 * seed
                place = folder / f"{m}-{count}-{seed}"
                metrics = {**accuracies(value, 0.7 * value), "test/ece": 0.05}
                halfway = [{"alpha": 0.5, **accuracies(0.45, 0.36)}]
                given = {"method": method, "shots": count, "seed": seed, "metrics": metrics, "wise_ft": halfway}
                write_run(place, seconds=5.0 + m, zero_shot=accuracies(0.4, 0.35), **{**given, **changes})
                write_kept(place, {"adapted": [0, 0, 1, m % 3, 2, 2], "zero_shot": [0, 1, 1, 0, 2, 0]})
