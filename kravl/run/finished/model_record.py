"""What a run's model is, without its data: model.json in the run's folder, and the same in its adapter's metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kravl.data.source import refuse_control
from kravl.data.templates import check_templates
from kravl.run.build import Run
from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, read_text
from kravl.tracking.run_folder import RunFolder

NAME = "model"  # .json
MOST_IMAGES = 2**31
Prompts = tuple[str, ...] | tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ModelRecord:
    """All that loading a run takes besides its config and its adapter.

    Args:
        class_ids: of the trained classes, in the order of the logits' columns.
        class_names: what they are called in a prompt.
        prompts: templates with one ``{}``, or for each class its own prompts.
        backbone: what `Classifier.provenance` says: the pretrained model, its weights' name, and preprocessing.
        weights_sha256: of all pretrained weights; None where the run did not keep it.
        sites: names of the adapted matrices.
        unfrozen: names of what trains besides.
        num_images: that it was trained on, of which a head on features may keep something each.
        seen: names of the classes that the run it started from (``init``) was trained on.
    """

    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    prompts: Prompts
    backbone: Mapping[str, Any]
    weights_sha256: str | None
    sites: tuple[str, ...]
    unfrozen: tuple[str, ...]
    num_images: int = 0
    seen: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}


def model_record(run: Run, folder: RunFolder) -> ModelRecord:
    """That of a run as it is, in its folder."""
    source, adapters = run.source, run.adapters
    weights = folder.inputs.get("weights")
    return ModelRecord(
        source.class_ids,
        source.class_names,
        source.prompts,
        run.classifier.provenance(),
        weights if isinstance(weights, str) else None,
        tuple(adapters.adapters),
        tuple(adapters.unfrozen),
        len(run.data.train_samples),
        run.seen,
    )


def read_model_record(folder: RunFolder) -> ModelRecord | None:
    """What is in model.json of ``folder``; None of a run of a release that did not write it.

    Raises:
        InputError: the file is not what `ModelRecord.as_json` gives.
    """
    path = folder.path / f"{NAME}.json"
    return _parsed(json_object(read_text(path), str(path)), str(path)) if path.is_file() else None


def _parsed(content: Mapping[str, Any], what: str) -> ModelRecord:
    names, ids = (_texts(content.get(key), f"{what}: {key}") for key in ("class_names", "class_ids"))
    if not names or len(names) != len(ids):
        raise InputError(f"{what} has {len(names)} class names and {len(ids)} ids; each class has one of both")
    refuse_control(what, [*names, *ids])
    backbone, weights = content.get("backbone"), content.get("weights_sha256")
    images = content.get("num_images", 0)  # earlier runs had no such head
    if not isinstance(backbone, dict) or not isinstance(weights, str | None) or not _is_count(images):
        raise InputError(f"{what} is not what kravl writes")
    refuse_control(what, [name for name in backbone.values() if isinstance(name, str)])  # a card shows them
    sites, unfrozen = (_texts(content.get(key), f"{what}: {key}") for key in ("sites", "unfrozen"))
    prompts = _prompts(content.get("prompts"), len(names), f"{what}: prompts")
    seen = _texts(content.get("seen", []), f"{what}: seen")
    return ModelRecord(ids, names, prompts, backbone, weights, sites, unfrozen, images, seen)


def _is_count(value: Any) -> bool:
    """Whether ``value`` may be a number of images."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_IMAGES


def _prompts(value: Any, classes: int, what: str) -> Prompts:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return check_templates(what, value)  # they are formatted, which a hostile one could use
    own = tuple(_texts(item, what) for item in value) if isinstance(value, list) else ()
    if len(own) != classes or not all(own):
        raise InputError(f"{what} are neither templates nor a list of sentences for each of {classes} classes")
    return own


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value) or isinstance(value, str):
        raise InputError(f"{what} is {str(value)[:80]!r}, not a list of texts")
    return tuple(value)
