"""The card of an export: what it is, what it scored, and how it is loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from kravl.data import catalog
from kravl.run.finished.restore import LoadedRun

LIBRARY = {"open_clip": "open_clip", "timm": "timm", "transformers": "transformers", "onnx": "onnx", "peft": "peft"}
CARD = """---
{metadata}
---

# {name}

{backbone} adapted by {method} to {data}, {amount}, seed {seed}, with kravl {version}{share}.
Classes ({count}): {classes}.

## Load

`load.py` needs {library} and no kravl: `python load.py IMAGE...` prints a class for each image, and
`runpy.run_path("load.py")["logits"](pictures)` gives logits. Before this folder was written, a process without kravl
scored the same pictures with it: the largest difference of a logit was {difference:.1e}, relative to the largest logit.

## Results

{results}

Accuracies are of the adapted weights{alpha_note}. `test` is of {data}; other sets are shifts, not trained on.

## Data and licence

{licence}

## Settings

These settings of `kravl train` gave the run, and `kravl export RUN --to {to}{alpha_option}` this folder.

```yaml
{settings}```
"""


def model_card(run: LoadedRun, to: str, alpha: float, difference: float) -> str:
    """The text of README.md, as the hub of Hugging Face reads it."""
    metrics = run.folder.metrics()
    count, names = len(run.class_names), run.class_names[:20]
    backbone = run.record.backbone
    text = CARD.format(
        metadata=_metadata(run, metrics, to),
        name=metrics["name"],
        backbone=f"{backbone.get('model')} ({backbone.get('pretrained')})",
        method=metrics["method"],
        data=metrics["dataset"],
        amount=f"{metrics['shots']} images per class" if isinstance(metrics["shots"], int) else "all or a share of it",
        seed=metrics["seed"],
        version=metrics["versions"]["kravl"],
        share="" if alpha == 1 else f"; WiSE-FT at {alpha:g} of the update",
        count=count,
        classes=", ".join(names) + (f" and {count - len(names)} more, see export.json" if count > len(names) else ""),
        library=LIBRARY.get(to, "torch"),
        difference=difference,
        results="\n".join(_results(metrics)),
        alpha_note="" if alpha == 1 else f", not of those at {alpha:g} of the update, which were not evaluated",
        licence=_licence(run, metrics),
        to=to,
        alpha_option="" if alpha == 1 else f" --alpha {alpha:g}",
        settings=yaml.safe_dump(metrics["config"], sort_keys=False, allow_unicode=True),
    )
    card = ModelCard(text)
    return str(card.content)


def _metadata(run: LoadedRun, metrics: Mapping[str, Any], to: str) -> str:
    accuracy = metrics["metrics"].get("test/accuracy")
    data = str(metrics["dataset"])
    results = [
        EvalResult("image-classification", data, data, "accuracy", accuracy, task_name="few-shot image classification")
    ]
    return ModelCardData(
        model_name=str(metrics["name"]),
        eval_results=results if accuracy is not None else None,
        library_name=LIBRARY.get(to),
        pipeline_tag="zero-shot-image-classification" if run.classifier.zero_shot else "image-classification",
        tags=["few-shot", "kravl", str(metrics["method"])],
    ).to_yaml()


def _results(metrics: Mapping[str, Any]) -> Iterator[str]:
    """A table of accuracies by set, zero-shot beside them where there is a zero-shot model."""
    zero_shot = metrics.get("zero_shot") or {}
    yield f"| set | accuracy |{' zero-shot |' if zero_shot else ''}"
    yield f"|---|---|{'---|' if zero_shot else ''}"
    for key, value in metrics["metrics"].items():
        name, _, metric = key.rpartition("/")
        if metric == "accuracy" and value is not None:
            before = f" {100 * zero_shot[key]:.1f} % |" if zero_shot.get(key) is not None else ""
            yield f"| {name} | {100 * value:.1f} % |{before}"


def _licence(run: LoadedRun, metrics: Mapping[str, Any]) -> str:
    """What is known of it: the weights' is their publisher's, the data set's is on its card."""
    data = str(metrics["dataset"])
    known = catalog.card(data).get("licence") if (catalog.folder() / data / "card.yaml").is_file() else None
    of_data = f"The licence of {data}: {known}." if known else f"{data} has no card; its licence is its owner's to say."
    weights = run.record.backbone.get("pretrained")
    return f"The pretrained weights ({weights}) keep the licence of their publisher. {of_data}"
