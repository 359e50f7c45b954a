"""Writes run folders as kravl.tracking.run_folder does, for the tests of what reads them."""

import json
from pathlib import Path
from typing import Any


def record(**changes: Any) -> dict[str, Any]:
    """A whole metrics.json of schema 1, with ``changes``."""
    return {
        "schema": 1,
        "name": "clip_vitb16_kra_16shot",
        "backbone": "clip_vitb16",
        "method": "kra",
        "adapter": "KRAdapter",
        "dataset": "dtd",
        "evaluation": "in_domain",
        "shots": 16,
        "seed": 1,
        "split_seed": 1,
        "split_protocol": "coop",
        "split_sha256": "aa" * 32,
        "templates": ["a photo of a {}."],
        "metrics": {"test/accuracy": 0.5, "test/ece": 0.125, "ood_mean": None, "harmonic_mean": None},
        "zero_shot": None,
        "wise_ft": [],
        "trainable_parameters": 43008,
        "adapter_bytes": 172032,
        "effective_rank": {"mean": 20.0, "visual.attn.qkv": 20.0},
        "versions": {"torch": "2.15.0", "kravl": "0.1.0"},
        "git_commit": "abc",
        "config": {"optim": {"lr": 0.001, "epochs": 10}, "seed": 1, "name": "x"},
        **changes,
    }


def write_run(folder: Path, seconds: float | None = None, **changes: Any) -> Path:
    """Write metrics.json, and cost.json where ``seconds`` are given; returns metrics.json."""
    folder.mkdir(parents=True)
    path = folder / "metrics.json"
    path.write_text(json.dumps(record(**changes)))
    if seconds is not None:
        cost = {"train_seconds": seconds, "evaluation_seconds": 1.5, "peak_memory_bytes": 1024, "device": "cpu"}
        (folder / "cost.json").write_text(json.dumps(cost))
    return path


def accuracies(test: float, sketch: float | None = None) -> dict[str, float | None]:
    """The metrics of a run that was evaluated on its test set and maybe one other."""
    if sketch is None:
        return {"test/accuracy": test, "ood_mean": None, "harmonic_mean": None}
    harmonic = 2 * test * sketch / (test + sketch)
    return {"test/accuracy": test, "sketch/accuracy": sketch, "ood_mean": sketch, "harmonic_mean": harmonic}
