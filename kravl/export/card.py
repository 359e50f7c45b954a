"""The card of an export: what it is, what it scored, and how it is loaded."""

from collections.abc import Sequence

from huggingface_hub import ModelCard

from kravl.run.finished.card import (
    amount,
    described_classes,
    inert,
    licence,
    metadata,
    results_table,
    settings_block,
)
from kravl.run.finished.restore import LoadedRun
from kravl.tracking.records import record_of

LIBRARY = {"open_clip": "open_clip", "timm": "timm", "transformers": "transformers", "onnx": "onnx", "peft": "peft"}
CARD = """---
{metadata}
---

# {name}

{backbone} adapted by {method} to {data}, {amount}, seed {seed}, with kravl {version}{share}.
Classes ({count}): {classes}.

## Load

`load.py` needs {needs}: `python load.py IMAGE...`
prints a class for each image, and `runpy.run_path("load.py")["logits"](pictures)` gives logits. Before this folder was
written, a process {process} scored the same pictures with it: the largest difference of a logit was
{difference:.1e} of the largest logit.
{calibration}
## Results

{results}

Accuracies are of the adapted weights{alpha_note}. `test` is of {data}; other sets are shifts, not trained on.

## Data and licence

{licence}

## Settings

These settings of `kravl train` gave the run, and `kravl export RUN --to {to}{alpha_option}` this folder.

{settings}
"""


def model_card(run: LoadedRun, to: str, alpha: float, difference: float, extensions: Sequence[str]) -> str:
    """The text of README.md, as the hub of Hugging Face reads it.

    Args:
        extensions: modules that its loader imports besides the library.
    """
    library = LIBRARY.get(to, "torch")
    reader = "onnxruntime, numpy and pillow" if to == "onnx" else library
    needs, process = f"{reader} and no kravl", "without kravl"
    if extensions:
        imports = " and ".join(f"`import {name}`" for name in extensions)
        needs = f"{library} and {imports}, which adds the method to it (`pip install 'kravl[{library},text]'`)"
        process = f"with {', '.join(extensions)} and nothing else of kravl"
    metrics = record_of(run.folder)
    backbone, calibrated = run.record.backbone, run.calibration if alpha == 1 else None
    text = CARD.format(
        metadata=metadata(metrics, run.classifier.zero_shot, LIBRARY.get(to)),
        name=inert(metrics["name"]),
        backbone=inert(f"{backbone.get('model')} ({backbone.get('pretrained')})"),
        method=inert(metrics["method"]),
        data=inert(metrics["dataset"]),
        amount=amount(metrics),
        seed=metrics["seed"],
        version=inert(metrics["versions"].get("kravl")),
        share="" if alpha == 1 else f"; WiSE-FT at {alpha:g} of the update",
        count=len(run.class_names),
        classes=described_classes(run.class_names, "export.json"),
        needs=needs,
        process=process,
        difference=difference,
        calibration=f"Its probabilities are calibrated: {calibrated.describe()}.\n" if calibrated else "",
        results="\n".join(results_table(metrics)),
        alpha_note="" if alpha == 1 else f", not of those at {alpha:g} of the update, which were not evaluated",
        licence=licence(weights=backbone.get("pretrained"), data=str(metrics["dataset"])),
        to=to,
        alpha_option="" if alpha == 1 else f" --alpha {alpha:g}",
        settings=settings_block(metrics["config"]),
    )
    card = ModelCard(text)
    return str(card.content)
