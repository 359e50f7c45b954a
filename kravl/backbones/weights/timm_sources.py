"""Where a timm model and its weights come from: timm itself, the hub, a folder or a path; checked before they load."""

from pathlib import Path
from typing import Any

import timm

from kravl.backbones.preprocess import Stated, timm_candidates, timm_settings
from kravl.backbones.weights.checkpoint import CONVERT
from kravl.backbones.weights.sources import (
    INSTEAD,
    LOAD_ERRORS,
    WeightFile,
    check_files,
    check_weights,
    folder_files,
    hub_file,
    require_hub_file,
)
from kravl.runtime.errors import InputError, first_line, unknown
from kravl.runtime.files import read_json

SOURCES = ("hf-hub", "local-dir")
LOCAL = "backbone.build.name=local-dir:{} with backbone.build.pretrained=true"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
TIMM_WEIGHTS = ("*.safetensors", "*.pth", "*.pth.tar", "*.bin")  # where timm looks in a folder
NOT_OF_A_MODEL = ("features_only", "cache_dir", "checkpoint_path", "scriptable", "exportable", "no_jit")


def check_source(name: str, pretrained: bool | str) -> None:
    """Whether there is a model of this name, in timm, on the hub or in a folder."""
    if ":" in name:
        return _check_foreign_source(name, pretrained)
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        if Path(name).is_dir():
            raise InputError(f"unknown timm model {name!r}; a folder that timm saved is {LOCAL.format(name)}")
        raise unknown("timm model", name, timm.list_models("*vit*") or timm.list_models())
    tags = timm.models.list_pretrained(f"{architecture}.*") if tag else []
    if tag and name not in tags:
        raise unknown(f"pretrained tag of {architecture}", tag, [known.partition(".")[2] for known in tags])


def _check_foreign_source(name: str, pretrained: bool | str) -> None:
    schema, _, place = name.partition(":")
    if isinstance(pretrained, str):
        raise InputError(f"{name!r} brings its own weights: pass backbone.build.pretrained=true, not {pretrained!r}")
    if schema == "hf-hub":
        require_hub_file(place.partition("@")[0], ["config.json"], f"model {name!r}")
        try:
            config, architecture, arguments = timm.models.load_model_config_from_hf(place)
        except LOAD_ERRORS as error:
            raise InputError(f"{name!r} is no model of timm: {first_line(error)}") from error
        _check_config({"architecture": architecture, "model_args": arguments, "pretrained_cfg": config}, name)
        return
    if schema != "local-dir":
        raise unknown("model source", schema, SOURCES)
    path = Path(place) / "config.json"
    if not path.is_file():
        raise InputError(f"no config.json in {place!r}; local-dir: takes a folder that timm saved")
    _check_config(read_json(path), str(path))


def _check_config(config: Any, what: str) -> None:
    """Raise InputError where the config of a model would load more than the weights beside it."""
    config = config if isinstance(config, dict) else {}
    arguments, weights = config.get("model_args", {}), config.get("pretrained_cfg", {})
    if not isinstance(arguments, dict) or not isinstance(weights, dict):
        raise InputError(f"{what} describes no model of timm: model_args and pretrained_cfg are settings by name")
    architecture = str(config.get("architecture"))[:80]
    if "model_type" in config and "architecture" not in config:
        kind = str(config["model_type"])[:80]
        raise InputError(f"{what} describes no model of timm, but {kind!r} of Hugging Face transformers; {CONVERT}")
    if architecture.partition(".")[0] not in timm.list_models():
        raise InputError(
            f"{what} describes no model of timm: {unknown('architecture', architecture, timm.list_models())}"
        )
    if refused := sorted(key for key in arguments if key in NOT_OF_A_MODEL or key.startswith("pretrained")):
        raise InputError(f"{what} is refused: its model_args may not set {', '.join(refused)}")


def expected_of(name: str, pretrained: bool | str, stated: Stated) -> dict[str, Any]:
    """What must be said of an image besides what timm knows of the weights."""
    architecture, _, tag = name.partition(".")
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            folder = f"; a folder that timm saved is {LOCAL.format(pretrained)}" if Path(pretrained).is_dir() else ""
            raise InputError(
                f"no checkpoint {pretrained!r}; pass the path of a .safetensors or .pth file, or true{folder}"
            )
        check_weights(Path(pretrained))
        candidates = timm_candidates(architecture)
        hint = f", or name a tag, as backbone.build.name={name}.{next(iter(candidates), '')}"
        return stated.complete({tag: candidates[tag]} if tag else candidates, name, hint)
    if ":" in name:
        stated.check_both(name)
    elif pretrained and (config := timm.get_pretrained_cfg(name)):
        stated.check(timm_settings(config.to_dict()), f"timm's weights of {name}")
    return stated.values()


def published_weights(name: str) -> list[WeightFile]:
    """Where weights that go by the model's name are; at hand or to be downloaded, and those of a folder safe."""
    schema, _, place = name.partition(":")
    if schema == "local-dir":
        check_files(Path(place), TIMM_WEIGHTS, "timm")
        return folder_files(Path(place), TIMM_WEIGHTS)
    if not place:
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise InputError(f"timm has no weights for {name!r}; {INSTEAD}")
        if not config.hf_hub_id:
            return [WeightFile(name, None)]
        place = f"timm/{name}" if config.hf_hub_id == "timm/" else config.hf_hub_id
    repo = place.partition("@")[0]
    require_hub_file(repo, HUB_FILES, f"weights of {name!r}")
    return [hub_file(repo, HUB_FILES)]
