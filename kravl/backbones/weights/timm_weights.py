"""timm models with the right weights, or one line that says what to pass instead, before any weights are loaded."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kravl.backbones.preprocess import Preprocess, Stated, timm_preprocess
from kravl.backbones.timm_heads import check_single_head, head_inputs, heads, mean_logits
from kravl.backbones.weights.checkpoint import (
    advice,
    check_finite,
    deeper_than,
    load_failure,
    read_checkpoint,
)
from kravl.backbones.weights.shared_model import model_key, shared_model
from kravl.backbones.weights.sources import LOAD_ERRORS, NUMPY, WeightFile
from kravl.backbones.weights.timm_sources import check_source, expected_of, published_weights
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.shared import is_sharing

log = logging.getLogger(__name__)
Size = int | Sequence[int]
# what a model raises that is built or run as it is not made for
UNFIT = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


class _Copied(TorchFunctionMode):
    """The tensors that something is copied into: the weights that are loaded, whatever names they had in a file."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}  # kept alive, so that no other gets the identity of one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_:
            self.tensors[id(args[0])] = args[0]
        return func(*args, **(kwargs or {}))

    def missing(self, model: Any) -> list[str]:
        """The weights of ``model`` besides its heads that nothing was copied into."""
        classifiers = model.pretrained_cfg.get("classifier") or ()
        names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        head = {id(tensor) for part in heads(model) for tensor in part.state_dict(keep_vars=True).values()}
        head |= {id(t) for n, t in model.state_dict(keep_vars=True).items() if n.rpartition(".")[0] in names}
        loaded = head | self.tensors.keys()
        return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in loaded]


class LoadedVit(NamedTuple):
    """A model, how many features each of its heads reads, and what its weights expect of an image."""

    model: Any
    widths: tuple[int, ...]
    preprocess: Preprocess


def load_vit(name: str, pretrained: bool | str, num_classes: int, image_size: Size | None, stated: Stated) -> LoadedVit:
    """The model ``name`` with the weights ``pretrained``: True for timm's own, a path, or False for none.

    Runs of one worker load them once.

    Raises:
        InputError: unknown model, one that kravl cannot score classes with, a size that does not fit, missing or
            mismatched checkpoint, weights that cannot be downloaded, or a checkpoint path of which the preprocessing
            must be given.
    """
    key = None
    if is_sharing() and ":" not in name:  # whose config comes from elsewhere
        key = model_key(find_vit(name, pretrained, stated), repr((name, pretrained, num_classes, image_size, stated)))
    return shared_model(key, lambda: _load(name, pretrained, num_classes, _plain(image_size), stated))


def _load(name: str, pretrained: bool | str, num_classes: int, size: Any, stated: Stated) -> LoadedVit:
    check_source(name, pretrained)
    expected = expected_of(name, pretrained, stated)
    probe, settings, widths = _probe(name, num_classes, size)
    settings = dict(settings)
    if pretrained is True:
        published_weights(name)
    preprocess = timm_preprocess(probe.pretrained_cfg, expected, size)
    overlay, names = _overlay(pretrained, probe)
    if overlay:
        settings["pretrained_cfg_overlay"] = overlay
    try:
        with _Copied() as copied:
            model: Any = timm.create_model(name, pretrained=bool(pretrained), num_classes=num_classes, **settings)
    except LOAD_ERRORS as error:
        reason = load_failure(error, names)
        weights = f"the weights {pretrained!r}" if isinstance(pretrained, str) else "its own weights"
        raise InputError(f"{weights} do not load into {name!r}: {reason}") from error
    if pretrained:
        check_finite(model, name if pretrained is True else pretrained)
    model.pretrained_cfg.pop("state_dict", None)  # timm would keep the whole checkpoint beside the model
    if isinstance(pretrained, str) or (pretrained and ":" in name):
        _check_covers(name if pretrained is True else str(pretrained), model, copied.missing(model), names)
    if getattr(model, "aux_head", None) is not None:
        model.aux_head = None  # VOLO's for each patch: its part of the logits is no function of an image's features
    return LoadedVit(model, widths, preprocess)


def find_vit(name: str, pretrained: bool | str, stated: Stated) -> list[WeightFile]:
    """Where the weights are; empty for random ones.

    Raises:
        InputError: as `load_vit`, but for what only loading them shows.
    """
    check_source(name, pretrained)
    expected_of(name, pretrained, stated)
    if isinstance(pretrained, str):
        return [WeightFile(pretrained, Path(pretrained))]
    if not pretrained:
        return []
    return published_weights(name)


def untrained_vit(name: str, pretrained: bool | str, num_classes: int, image_size: Size | None) -> nn.Module:
    """The model ``name`` on the meta device: its modules and shapes, without memory for weights.

    Raises:
        InputError: as `load_vit`, of the model alone.
    """
    check_source(name, pretrained)
    model: nn.Module = _probe(name, num_classes, _plain(image_size))[0]
    return model


def _plain(image_size: Size | None) -> Any:
    return tuple(image_size) if isinstance(image_size, Sequence) else image_size


def _overlay(pretrained: bool | str, probe: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """What timm is told of a checkpoint at a path, and the names of the tensors in it."""
    if not isinstance(pretrained, str):
        return {}, []
    if Path(pretrained).suffix in NUMPY:
        return {"file": pretrained, "custom_load": True}, []
    own = list(probe.state_dict())
    tensors, unpacked = read_checkpoint(Path(pretrained), own, lambda left: {*left} <= {*own})
    names = list(tensors)
    if name := deeper_than(probe, names):
        raise InputError(f"{pretrained} is a checkpoint of a deeper model: it has {name!r}, which this one lacks")
    if unpacked:
        log.info("weights of %s: %s", pretrained, unpacked)
    # the head is new in any case: with another number of classes than the model's, timm leaves out that of the file
    return {"state_dict": tensors, "num_classes": -1}, names


def _check_covers(weights: str, model: nn.Module, missing: Sequence[str], names: Sequence[str]) -> None:
    """timm silently leaves weights that a checkpoint lacks random: refuse a checkpoint of another model."""
    if missing:
        unknown_names = [name for name in names if name not in model.state_dict()]
        has = f", and has {unknown_names[0]!r}" if unknown_names else ""
        raise InputError(
            f"{weights} is a checkpoint of another model: it lacks {len(missing)} weights, such as {missing[0]!r}{has}"
            f"{advice(names)}"
        )


@functools.lru_cache(maxsize=1)  # a model is asked for its sites, and then loaded
def _probe(name: str, num_classes: int, image_size: Any) -> tuple[Any, dict[str, Any], tuple[int, ...]]:
    """The model without memory for its weights, what it must be built with, and how many features its heads read.

    Raises:
        InputError: kravl cannot score classes with it, or not at this size.
    """
    try:
        return _tried(name, num_classes, image_size)
    except UNFIT as error:
        if image_size is None:
            raise InputError(f"{name!r} cannot be a backbone: {first_line(error)}") from error
        model, _, _ = _probe(name, num_classes, None)
        own, patch = model.pretrained_cfg["input_size"][-1], getattr(model, "patch_embed", None)
        side = getattr(patch, "patch_size", None)
        side = side[0] if isinstance(side, tuple | list) else side
        rule = f", and a multiple of its patch, {side}, may fit" if side else ""
        raise InputError(
            f"image_size={image_size} does not fit {name!r}: {first_line(error)}; its own size is {own}{rule}"
        ) from error


def _tried(name: str, num_classes: int, image_size: Any) -> tuple[Any, dict[str, Any], tuple[int, ...]]:
    settings = {} if image_size is None else {"img_size": image_size}
    try:
        model = _untrained(name, num_classes, "meta", settings)
    except TypeError as error:
        if not settings or "img_size" not in str(error):
            raise
        settings = {}  # a convolutional model takes images of any size
        model = _untrained(name, num_classes, "meta", settings)
    size = timm_preprocess(model.pretrained_cfg, {}, image_size).image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    with torch.no_grad():
        features = head_inputs(model, torch.zeros(1, 3, height, width, device="meta"))
        shapes = [tuple(x.shape) for x in features]
        logits = mean_logits(model, features)
    if any(len(shape) != 2 for shape in shapes) or tuple(logits.shape) != (1, num_classes):
        raise ValueError(f"its heads read features {shapes} and give logits {tuple(logits.shape)}")
    if len(features) == 1:
        check_single_head(model, torch.zeros(1, 3, height, width, device="meta"))
    else:
        _check_mean(_untrained(name, num_classes, "cpu", settings), torch.full((1, 3, height, width), 0.5))
    return model, settings, tuple(shape[1] for shape in shapes)


def _untrained(name: str, num_classes: int, device: str, settings: Mapping[str, Any]) -> Any:
    """The model with random weights; the run's own random numbers are not touched."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return timm.create_model(name, num_classes=num_classes, **settings).eval()


def _check_mean(model: Any, images: Tensor) -> None:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for parameter in model.parameters():  # a mean that is weighted starts as a plain one
            parameter.add_(0.1 * torch.randn_like(parameter))
        expected, actual = model(images), mean_logits(model, head_inputs(model, images))
    if not torch.allclose(actual, expected, atol=1e-4, rtol=1e-4):
        raise ValueError(f"its logits are not the mean of its {len(heads(model))} heads")
