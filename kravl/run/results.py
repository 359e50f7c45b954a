"""What a run records: metrics.json, cost.json, details.json and predictions.csv."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kravl.config.schema import Config
from kravl.evaluation.metrics import DIGITS, IN_DOMAIN, Results, reliability, summary
from kravl.evaluation.predict import Predictions
from kravl.evaluation.wise_ft import ADAPTED, PRETRAINED
from kravl.run.build import Run, training_amount
from kravl.run.finished.continued import init_record
from kravl.run.stages.training import stage_record
from kravl.runtime.files import csv_text, write_atomic
from kravl.runtime.profiler import Costs, peak, seconds
from kravl.tracking.provenance import provenance
from kravl.tracking.run_folder import RunFolder
from kravl.tracking.settings import cell_of

OF_INPUTS = ("accepted", "data_sha256", "sets_sha256", "trained_on")  # what a record repeats of inputs.json
DETAILS, IMAGES = "details.json", "predictions.csv"
MODELS = {ADAPTED: "adapted", PRETRAINED: "zero_shot"}  # by alpha: what is kept; the points between are metrics only


def describe(cfg: Config, run: Run, folder: RunFolder) -> dict[str, Any]:
    """What was run on what, with which code: all that a table needs to tell runs apart."""
    adapters = run.adapters
    spectra = {site: values["effective_rank"] for site, values in adapters.statistics().items()}
    mean = {"mean": sum(spectra.values()) / len(spectra)} if spectra else {}
    record = {
        "schema": 1,
        "name": cfg.name,
        "backbone": cfg.backbone.name,
        "method": cfg.label,
        "cell": cell_of(cfg.label, folder.settings),
        "adapter": adapters.description()["method"],
        "hyperparameters": adapters.description()["hyperparameters"],
        "sites": run.sites,
        "dataset": cfg.data.name,
        "evaluation": cfg.evaluation.name,
        "shots": training_amount(cfg),
        "seed": cfg.seed,
        "split_seed": cfg.split_seed,
        "split_protocol": cfg.split_protocol,
        "split_sha256": run.data.split_sha256,
        "templates": run.source.prompt_record(),
        "classifier": run.classifier.provenance(),
        "trainable_parameters": adapters.num_trainable(),
        "adapter_bytes": folder.adapter.stat().st_size,
        "effective_rank": mean | spectra,
        **{key: value for key, value in folder.inputs.items() if key in OF_INPUTS},
        **init_record(cfg, folder),
        **stage_record(cfg, run),
        **scored_by(run),
        **provenance(),
    }
    if (head := run.classifier.feature_head) is not None:
        record |= {"hyperparameters": head.hyperparameters(), "head": f"{type(head).__module__}.{type(head).__name__}"}
    return record


def scored_by(run: Run) -> dict[str, Any]:
    """What a record says of selective inference: which classes of each set trained weights score, and which the text.

    Of a run without it nothing.
    """
    if not run.selective:
        return {}
    trained, found = len(run.source.class_names), {}
    for name, columns in run.data.evaluation_classes(selective=True).items():
        names = run.data.sources[name].class_names
        # a class that several trained ones stand for has a tuple of columns, trained ones all
        others = {i for i, column in enumerate(columns or ()) if isinstance(column, int) and column >= trained}
        found[name] = {
            "class_weights": [known for i, known in enumerate(names) if i not in others],
            "text_tower": [names[i] for i in sorted(others)],
        }
    return {"scored_by": found}


def unevaluated(run: Run, curve: Mapping[float, Mapping[str, Predictions]]) -> list[str]:
    """A line for each set of which not every image was evaluated."""
    counts = {(name, len(rows.indices)) for sets in curve.values() for name, rows in sets.items()}
    whole = {name: len(samples) for name, samples in run.data.evaluated.items()}
    return [f"evaluated {n} of {whole[name]} images of {name}" for name, n in sorted(counts) if n < whole[name]]


def scores(curve: Mapping[float, Results]) -> dict[str, Any]:
    """The adapted model's metrics, zero-shot's (None without a zero-shot model) and the points between, by alpha."""
    flat = {alpha: _flat(results) for alpha, results in curve.items()}
    between = [{"alpha": alpha, **metrics} for alpha, metrics in flat.items() if 0 < alpha < 1]
    return {"metrics": flat[ADAPTED], "zero_shot": flat.get(PRETRAINED), "wise_ft": between}


def cost(phases: Costs, spectrum_seconds: float, device: torch.device) -> dict[str, Any]:
    """Seconds, and the peak of memory in bytes: of the GPU's allocator where there is one, else of the process.

    ``phases`` has both for each phase of the run; ``train_seconds`` are with the features that training needs, and with
    what spectra took.
    """
    on_gpu = device.type == "cuda"
    return {
        "train_seconds": seconds(phases, "features", "train"),
        "evaluation_seconds": seconds(phases, "evaluate"),
        "spectrum_seconds": spectrum_seconds,
        "peak_memory_bytes": peak(phases, "peak_gpu_bytes" if on_gpu else "peak_memory_bytes"),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "phases": dict(phases),
    }


def precisions(trained: str, evaluated: str) -> str:
    """What a record says of precision: one, or both where a run was evaluated in another than it was trained in."""
    return trained if trained == evaluated else f"{trained}, evaluated in {evaluated}"


def _flat(results: Results) -> dict[str, float | None]:
    metrics = {f"{name}/{metric}": value for name, values in results.items() for metric, value in values.items()}
    return metrics | {key: value for key, value in summary(results).items() if key != "in_domain"}


def write_details(
    folder: Path,
    evaluation: str,
    curve: Mapping[float, Mapping[str, Predictions]],
    class_names: Sequence[str],
    images: Sequence[str],
) -> dict[str, Any]:
    """Write details.json and predictions.csv to ``folder``; returns what is in details.json.

    Args:
        evaluation: the name that its sets go by together.
        curve: alpha -> set -> predictions, of which the adapted model's (1) and, if it is there, zero-shot's (0) count.
        class_names: of the set ``test``.
        images: the names of its images, which are their paths below the root of the set.
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
    write_atomic(folder / DETAILS, json.dumps(details, sort_keys=True) + "\n")
    # a file name need not be UTF-8, a file of kravl is
    table = _per_image(tests, class_names, images).encode("utf-8", "backslashreplace")
    write_atomic(folder / IMAGES, table)
    return details


def _count(labels: torch.Tensor, classes: int) -> list[int]:
    return torch.bincount(labels, minlength=classes).tolist()


def _per_image(tests: Mapping[str, Predictions], class_names: Sequence[str], images: Sequence[str]) -> str:
    """A line per image: index and class, what each model says and how sure it is; then the same in names."""
    first = tests["adapted"]
    columns: dict[str, list[Any]] = {"index": first.indices.tolist(), "label": first.labels.tolist()}
    for model, rows in tests.items():
        columns[f"{model}_predicted"] = rows.predicted.tolist()
        columns[f"{model}_confidence"] = [round(value, DIGITS) for value in rows.confidence.tolist()]
    columns["path"] = [images[index] for index in columns["index"]]
    for name in ("label", *(f"{model}_predicted" for model in tests)):
        columns[f"{name}_name"] = [class_names[label] for label in columns[name]]
    return csv_text([list(columns), *zip(*columns.values(), strict=True)], line_end="\n")
