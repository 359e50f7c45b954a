"""open_clip models with the right weights and activation, or one line that says what to pass instead."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kravl.backbones import tiny
from kravl.backbones.preprocess import Stated, clip_candidates, clip_settings
from kravl.backbones.text.tokens import require_text
from kravl.backbones.weights.checkpoint import check_finite, load_failure, misfit, read_checkpoint
from kravl.backbones.weights.hf_clip import is_hf_clip, renamed
from kravl.backbones.weights.shared_model import model_key, shared_model
from kravl.backbones.weights.sources import (
    LOAD_ERRORS,
    LOCAL_WEIGHTS,
    NUMPY,
    WeightFile,
    check_files,
    check_model_config,
    check_weights,
    folder_files,
    hub_file,
    require_hub_file,
)
from kravl.runtime.errors import InputError, first_line, unknown
from kravl.runtime.files import read_json
from kravl.runtime.shared import is_sharing

log = logging.getLogger(__name__)
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
NOT_BIG_VISION = "; a .npz of big_vision fits models whose image tower is timm's, such as ViT-B-16-SigLIP"


class Chosen(NamedTuple):
    """A model and its weights, checked and not loaded; `choose_clip` makes it."""

    name: str
    pretrained: str | None
    activation: bool
    preprocess: dict[str, Any]


def choose_clip(name: str, pretrained: str | None, quick_gelu: bool | None, stated: Stated) -> Chosen:
    """The model ``name`` with the weights ``pretrained``: a tag, a path, or None.

    Raises:
        InputError: unknown model or tag, missing checkpoint, weights that cannot be downloaded, a text tower that needs
            an extra of kravl, or a checkpoint path for which the activation or the preprocessing must be given.
    """
    _check_model(name)
    require_text(name)
    if ":" in name:
        schema, _, place = name.partition(":")
        if schema == "local-dir":
            check_files(Path(place), LOCAL_WEIGHTS, "open_clip")
        activation = False  # the folder's or the repository's own config decides
    else:
        if pretrained is not None and (config := open_clip.get_pretrained_cfg(name, pretrained)):
            stated.check(clip_settings(config), f"{pretrained!r} of {name}")
        activation = _quick_gelu(name, pretrained, quick_gelu)
    return Chosen(name, pretrained, activation, _preprocess(name, pretrained, stated))


def find_clip(chosen: Chosen) -> list[WeightFile]:
    """Where the weights are; empty for random ones."""
    name, pretrained = chosen.name, chosen.pretrained
    schema, _, place = name.partition(":")
    if schema == "local-dir":
        return folder_files(Path(place), LOCAL_WEIGHTS)
    if place:
        return [hub_file(place, HUB_WEIGHTS)]
    if pretrained is None:
        return []
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config:
        return [WeightFile(pretrained, Path(pretrained))]
    if "file" in config:
        return [WeightFile(Path(config["file"]).name, Path(config["file"]))]
    return [hub_file(*_hub_files(config))]


def untrained_clip(name: str) -> nn.Module:
    """The model ``name`` on the meta device: its modules and shapes, without memory for weights.

    Raises:
        InputError: unknown model, or one that open_clip cannot build, or not without an extra of kravl.
    """
    _check_model(name)
    config = open_clip.get_model_config(name)
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "hf_model_name" in text:
        require_text(name)
    text["hf_model_pretrained"] = vision["timm_model_pretrained"] = False
    kind: Any = open_clip.CLIP
    if config.pop("custom_text", False) or "hf_model_name" in text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        with torch.device("meta"):
            return kind(**config)
    except LOAD_ERRORS as error:  # a folder's config may say anything; transformers may be missing
        raise InputError(f"{name!r} cannot be a backbone: {first_line(error)}") from error


def load_clip(chosen: Chosen) -> tuple[nn.Module, bool]:
    """The model with its weights, and whether it uses QuickGELU; runs of one worker load them once.

    Its ``visual.preprocess_cfg`` is what the weights expect of an image, with what was stated of weights at a path.

    Raises:
        InputError: a damaged or mismatched checkpoint.
    """
    key = None
    if is_sharing() and ":" not in chosen.name:
        config = open_clip.get_model_config(chosen.name)
        if "hf_model_name" not in config["text_cfg"]:  # whose config comes from elsewhere
            key = model_key(find_clip(chosen), str(chosen), str(config))
    return shared_model(key, lambda: _load(chosen))


def _load(chosen: Chosen) -> tuple[nn.Module, bool]:
    name, pretrained, activation, preprocess = chosen
    given: dict[str, Tensor] = {}
    try:
        with without_progress(), _readable(name, pretrained, given) as source:
            # without weights of its own, a text tower of Hugging Face would be downloaded for pretrained=None
            settings: dict[str, Any] = {"force_quick_gelu": activation, "force_preprocess_cfg": preprocess}
            model = open_clip.create_model(name, pretrained=source, pretrained_text=False, **settings)
    except LOAD_ERRORS as error:
        reason = load_failure(error, list(given))
        raise InputError(f"the weights {pretrained!r} do not load into {name!r}: {reason}") from error
    except (AttributeError, AssertionError) as error:  # open_clip's code that resizes and renames another model's
        reason = _another_clip(name, given) if given else f"{first_line(error)}{NOT_BIG_VISION}"
        raise InputError(f"the weights {pretrained!r} do not load into {name!r}: {reason}") from error
    if pretrained or ":" in name:
        check_finite(model, str(pretrained or name))
    if ":" in name:
        activation = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    return model, activation


@contextmanager
def without_progress() -> Iterator[None]:
    """Within the block open_clip, which writes to the root logger, tells of warnings and not of every step."""
    root = logging.getLogger()
    root.addFilter(_worth_telling)
    try:
        yield
    finally:
        root.removeFilter(_worth_telling)


def _worth_telling(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or Path(open_clip.__file__).parent not in Path(record.pathname).parents


def _check_model(name: str) -> None:
    """Whether there is a model of this name, in open_clip, on the hub or in a folder."""
    if name == tiny.NAME:
        tiny.register()
    if ":" in name:
        _check_source(name)
    elif name not in open_clip.list_models():
        raise unknown("open_clip model", name, [*open_clip.list_models(), tiny.NAME])


def _check_source(name: str) -> None:
    schema, _, place = name.partition(":")
    if schema == "hf-hub":
        require_hub_file(place, ["open_clip_config.json"], f"model {name!r}")
        check_model_config({"model_cfg": open_clip.get_model_config(name)}, f"the config of {name!r}")
    elif schema != "local-dir":
        raise unknown("model source", schema, ("hf-hub", "local-dir"))
    elif not (file := Path(place) / "open_clip_config.json").is_file():
        raise InputError(f"no open_clip_config.json in {place!r}; local-dir: takes a folder that open_clip saved")
    else:
        check_model_config(read_json(file), str(file))


def _quick_gelu(name: str, pretrained: str | None, stated: bool | None) -> bool:
    """The activation that the weights were trained with; never guessed."""
    in_config = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    if pretrained is None:
        return bool(stated) or in_config
    if config := open_clip.get_pretrained_cfg(name, pretrained):
        trained_with = bool(config.get("quick_gelu", False))
        if stated not in (None, trained_with):
            raise InputError(f"quick_gelu={stated} contradicts {pretrained!r}, trained with quick_gelu={trained_with}")
        _check_reachable(f"weights {pretrained!r} of {name!r}", config)
        return trained_with
    if not Path(pretrained).is_file():
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise InputError(f"{unknown(f'pretrained tag of {name}', pretrained, tags)}; nor is it a file")
    check_weights(Path(pretrained))
    recorded = _recorded_quick_gelu(Path(pretrained)) if stated is None else stated
    if recorded is None and not in_config and f"{name}-quickgelu" in open_clip.list_models():
        raise InputError(
            f"the checkpoint {pretrained} does not record its activation: pass backbone.build.quick_gelu=true (OpenAI, "
            "DFN, MetaCLIP weights) or false (LAION, DataComp); the wrong one silently costs accuracy"
        )
    return in_config or bool(recorded)


def _preprocess(name: str, pretrained: str | None, stated: Stated) -> dict[str, Any]:
    """What must be said of an image besides what open_clip knows of the weights."""
    if ":" in name:
        stated.check_both(name)
    if ":" in name or pretrained is None or open_clip.get_pretrained_cfg(name, pretrained):
        return stated.values()
    return stated.complete(clip_candidates(name), name)


@contextmanager
def _readable(name: str, pretrained: str | None, given: dict[str, Tensor]) -> Iterator[str | None]:
    """``pretrained``, or a file that open_clip reads where it would not read the one at this path.

    ``given`` gets the shapes of the tensors in it, on the meta device.
    """
    path = Path(pretrained or "")
    if ":" in name or not path.is_file() or path.suffix in NUMPY or open_clip.get_pretrained_cfg(name, str(pretrained)):
        yield pretrained
        return
    tensors, unpacked = read_checkpoint(path, [], lambda left: _is_of(name, left))
    if is_hf_clip(tensors):
        tensors, unpacked = renamed(tensors), "the names of Hugging Face transformers"
    given |= {key: value.to("meta") for key, value in tensors.items()}
    if not unpacked:
        del tensors
        yield pretrained
        return
    log.info("weights of %s: %s", pretrained, unpacked)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        # copies, as safetensors stores no memory twice
        save_file({key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}, file)
        del tensors
        yield str(file)


def _is_of(name: str, left: Sequence[str]) -> bool:
    return is_hf_clip(dict.fromkeys(left)) or {*left} <= untrained_clip(name).state_dict().keys()


def _another_clip(name: str, given: dict[str, Tensor]) -> str:
    return misfit(given, {key: tuple(value.shape) for key, value in untrained_clip(name).state_dict().items()})


def _recorded_quick_gelu(path: Path) -> bool | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            value = (file.metadata() or {}).get("quick_gelu")
    except SafetensorError as error:
        raise InputError(f"{path} is not a complete safetensors file: {error}") from error
    return None if value is None else value == "true"


def _check_reachable(what: str, config: dict[str, str]) -> None:
    if "file" in config:
        return
    require_hub_file(*_hub_files(config), what)


def _hub_files(config: dict[str, str]) -> tuple[str, list[str]]:
    """The repository of weights that have a tag, and what their file may be called there."""
    repo, name = config["hf_hub"].rsplit("/", 1)
    names = [name] if name else list(HUB_WEIGHTS)
    return repo, [*names, *(str(Path(n).with_suffix(".safetensors")) for n in names)]
