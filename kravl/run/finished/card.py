"""The card of a run: what it is, what it scored, and whose its weights and images are; an export has the same parts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from kravl.data import catalog
from kravl.run.build import Run
from kravl.run.finished.model_record import NAME, ModelRecord, model_record
from kravl.tracking.run_folder import RunFolder

SHOWN = 20  # classes
MARKUP = re.compile(r"[\\`*_\[\]<>&|!#$~]")  # of Markdown and HTML: a name may not fetch a picture where a card is read
LIVE = re.compile(r"[\\`*\[\]<>&|!#$~]|:(?=//)|(?<=www)\.")  # with what makes an address a link, without _
README = "README.md"
CARD = """---
{metadata}
---

# {name}

{backbone} adapted by {method} to {data}, {amount}, seed {seed}, with kravl {version}.
Classes ({count}): {classes}.

## Load

`kravl.FewShotModel.load("FOLDER")`, `kravl predict FOLDER IMAGES` and `kravl export FOLDER --to FORMAT` read the folder
with these files (`pip install kravl`): `adapter.safetensors` holds what was trained, `config.yaml` the settings, and
`model.json` the classes. The pretrained weights come from their publisher; others than it was trained on (sha256
{sha256}) are refused.
{calibration}
## Results

{results}

`test` is of {data}; other sets are shifts, not trained on.

## Data and licence

{licence}

## Settings

{settings}
"""


def adapter_files(run: Run, folder: RunFolder, metrics: Mapping[str, Any]) -> dict[str, Path | str]:
    """What a tracker keeps of a run's model, by name: a path, or the text itself. A folder with them loads as the run.

    Args:
        metrics: the record of the run.
    """
    files = [folder.adapter, folder.path / "config.yaml", folder.path / f"{NAME}.json"]
    card = run_card(metrics, model_record(run, folder), run.classifier.zero_shot)
    return {**{file.name: file for file in files}, "metrics.json": json.dumps(metrics), README: card}


def run_card(metrics: Mapping[str, Any], record: ModelRecord, zero_shot: bool, calibrated: str | None = None) -> str:
    """The text of README.md, as the hub of Hugging Face reads it.

    Args:
        zero_shot: whether classes are scored by their names.
        calibrated: how, where a temperature was fitted.
    """
    weights, data = record.backbone.get("pretrained"), str(metrics["dataset"])
    text = CARD.format(
        metadata=metadata(metrics, zero_shot, "kravl"),
        name=inert(metrics["name"]),
        backbone=inert(f"{record.backbone.get('model')} ({weights})"),
        method=inert(metrics["method"]),
        data=inert(data),
        amount=amount(metrics),
        seed=metrics["seed"],
        version=inert(metrics["versions"].get("kravl")),
        count=len(record.class_names),
        classes=described_classes(record.class_names, f"{NAME}.json"),
        sha256=inert(str(record.weights_sha256)[:12]),
        calibration=f"\nIts probabilities are calibrated: {calibrated}.\n" if calibrated else "",
        results="\n".join(results_table(metrics)),
        licence=licence(weights, data),
        settings=settings_block(metrics["config"]),
    )
    return str(ModelCard(text).content)


def inert(text: object) -> str:
    """``text`` of a record as Markdown that shows it as it is: it is no picture, link, tag or table."""
    return LIVE.sub(r"\\\g<0>", str(text))


def settings_block(config: Mapping[str, Any]) -> str:
    """The settings as a block of YAML, which no text in them can end."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}yaml\n{text}{fence}"


def amount(metrics: Mapping[str, Any]) -> str:
    """How many images a run was trained on."""
    return f"{metrics['shots']} images per class" if isinstance(metrics["shots"], int) else "all or a share of it"


def described_classes(names: Sequence[str], file: str) -> str:
    """The first ``names`` as Markdown that shows them as they are, and how many more are in ``file``."""
    more = f" and {len(names) - SHOWN} more, see {file}" if len(names) > SHOWN else ""
    return ", ".join(MARKUP.sub(r"\\\g<0>", name) for name in names[:SHOWN]) + more


def metadata(metrics: Mapping[str, Any], zero_shot: bool, library: str | None) -> str:
    """The head of a card in YAML."""
    accuracy = metrics["metrics"].get("test/accuracy")
    data = str(metrics["dataset"])
    results = [
        EvalResult("image-classification", data, data, "accuracy", accuracy, task_name="few-shot image classification")
    ]
    return ModelCardData(
        model_name=str(metrics["name"]),
        eval_results=results if accuracy is not None else None,
        library_name=library,
        pipeline_tag="zero-shot-image-classification" if zero_shot else "image-classification",
        tags=["few-shot", "kravl", str(metrics["method"])],
    ).to_yaml()


def results_table(metrics: Mapping[str, Any]) -> Iterator[str]:
    """A table of accuracies by set, zero-shot beside them where there is a zero-shot model."""
    zero_shot = metrics.get("zero_shot") or {}
    yield f"| set | accuracy |{' zero-shot |' if zero_shot else ''}"
    yield f"|---|---|{'---|' if zero_shot else ''}"
    for key, value in metrics["metrics"].items():
        name, _, metric = key.rpartition("/")
        if metric == "accuracy" and value is not None:
            before = f" {100 * zero_shot[key]:.1f} % |" if zero_shot.get(key) is not None else ""
            yield f"| {inert(name)} | {100 * value:.1f} % |{before}"


def licence(weights: object, data: str) -> str:
    """What is known of it: the weights' is their publisher's, the data set's is on its card."""
    is_card = Path(data).name == data and (catalog.folder() / data / "card.yaml").is_file()
    known = catalog.card(data).get("licence") if is_card else None
    of_data = (
        f"The licence of {data}: {known}." if known else f"{inert(data)} has no card; its owner knows its licence."
    )
    return f"The pretrained weights ({inert(weights)}) keep the licence of their publisher. {of_data}"
