"""Checkpoints as people have them: whose layout it is, its tensors freed of what a trainer wraps around them."""

import argparse
import logging
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kravl.backbones.structure.blocks import OF_CAPTIONS
from kravl.backbones.weights.torchscript import is_torchscript, read_torchscript
from kravl.runtime.errors import InputError, first_line

log = logging.getLogger(__name__)
# where trainers keep the weights in what they save; the first that is there counts, averaged ones before the others
AVERAGED = ("state_dict_ema", "model_ema", "ema", "params_ema")
CONTAINERS = (
    *(*AVERAGED, "state_dict", "model_state_dict", "model", "module", "net", "network"),
    *("teacher", "target_encoder", "encoder", "backbone", "weights", "params"),
)
# what wrappers put before each name: torch.compile, data parallel, Lightning, self-supervised trainers
WRAPPERS = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.")
# of AveragedModel, of OpenAI's archives, and of traces of open_clip, which keep the mask that a model computes
NOT_WEIGHTS = ("n_averaged", "input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask")
CONVERT = "convert it with the code of its authors, or name published weights"
# what the name of one of its tensors matches: whose layout it is, and what to do where it does not load
LAYOUTS = {
    r"base_model\.model\.|.*\.lora_[AB]\.": ("an adapter of PEFT", "merge it into its model and save that"),
    r"(text|vision)_model\.encoder\.layers\.": ("CLIP in Hugging Face transformers", CONVERT),
    r"(\w+\.)?encoder\.layer\.\d": ("a ViT or BERT in Hugging Face transformers", CONVERT),
    r"encoder\.layers\.encoder_layer_": ("a ViT in torchvision", CONVERT),
    r"(params/)?(img|txt)/": ("big_vision", "pass its .npz to a model of the same size"),
    r"(\w+/)*Transformer/encoderblock": ("a ViT in JAX", "pass its .npz to a model of the same size"),
    r"(module\.)?visual\.": ("CLIP in open_clip", "choose that backbone and the model's name in open_clip"),
    r"(trunk\.)?blocks\.\d": ("a ViT in timm", "choose that backbone and the model's name in timm"),
    r"layer1\.0\.": ("a ResNet", "choose a backbone of its name"),
}


class Checkpoint(NamedTuple):
    """The tensors of a file by name, and where they lay in it, for a line in the log; empty where all of it is used."""

    tensors: dict[str, Tensor]
    unpacked: str


def load_content(path: Path) -> Any:
    """What a file holds, read without running anything in it: tensors by name, or what a trainer keeps around them.

    Raises:
        UnpicklingError: it holds more than tensors, plain values and `argparse.Namespace`, or is damaged.
        RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError, SafetensorError: it is damaged.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_torchscript(path):
        return read_torchscript(path)
    is_zip = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # plain values by name: the arguments of a trainer
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return is_torchscript(archive)


def blocked_names(path: Path) -> list[str]:
    """What a pickle names besides tensors and plain values; empty where it cannot be told."""
    with suppress(RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError, UnpicklingError):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return []


def container(content: Any) -> tuple[str, ...] | None:
    """The keys that lead to the tensors by name in ``content``; None where there are none.

    Those of `CONTAINERS` count before others, of which one will do where it alone leads there. One that has less than
    half as many tensors as another, such as the decay of an average, holds no weights.
    """
    if not isinstance(content, Mapping):
        return None
    known = {key: path for key in CONTAINERS if (path := container(content.get(key))) is not None}
    counts = {key: _tensors_at(content, (key, *path)) for key, path in known.items()}
    for key, path in known.items():
        if 2 * counts[key] >= max(counts.values()):
            return (key, *path)
    if any(isinstance(value, Tensor) for value in content.values()):
        return ()
    inner = {key: container(value) for key, value in content.items() if isinstance(key, str)}
    paths = [(key, *path) for key, path in inner.items() if path is not None]
    return paths[0] if len(paths) == 1 else None


def _tensors_at(content: Any, path: Sequence[str]) -> int:
    for key in path:
        content = content[key]
    return sum(isinstance(value, Tensor) for value in content.values())


def read_checkpoint(path: Path, names: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> Checkpoint:
    """The tensors of a file that `check_weights` has accepted, under the names that they have in a bare model.

    Args:
        names: those of the model that is to be loaded, which tell a wrapper's prefix from a part of the model.
        fits: whether names are those of the model, asked where all tensors of the file share a prefix of no known
            wrapper.

    Raises: as `load_content`.
    """
    content = load_content(path)
    parts = ["a TorchScript archive"] if _is_torchscript(path) else []
    keys = container(content) or ()
    if (
        keys
        and keys[0] in AVERAGED
        and (passed := [k for k in CONTAINERS if k not in AVERAGED and container(content.get(k)) is not None])
    ):
        parts.append(f"averaged weights rather than {passed[0]}")
    for key in keys:
        content = content[key]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor) and name not in NOT_WEIGHTS}
    tensors, prefix = _unwrapped(tensors, names)
    if own := _common_prefix(tensors, fits):
        tensors, prefix = {name.removeprefix(own): tensor for name, tensor in tensors.items()}, prefix + own
    parts += [f"entry {'.'.join(keys)}"] if keys else []
    parts += [f"names without {prefix}"] if prefix else []
    if len(tensors) < len(content):
        parts.append(f"{len(tensors)} of {len(content)} entries")
    return Checkpoint(tensors, ", ".join(parts))


def _unwrapped(tensors: dict[str, Tensor], names: Sequence[str]) -> tuple[dict[str, Tensor], str]:
    """The tensors behind the prefixes of wrappers; beside those of a wrapped model, others are of its trainer."""
    parts = {name.partition(".")[0] for name in names}
    stripped = ""
    while True:
        candidates = [w for w in WRAPPERS if w[:-1] not in parts and any(name.startswith(w) for name in tensors)]
        wrapped = [{n.removeprefix(w): t for n, t in tensors.items() if n.startswith(w)} for w in candidates]
        best = max(range(len(wrapped)), key=lambda i: len(wrapped[i]), default=None)
        if best is None or 2 * len(wrapped[best]) < len(tensors):
            return tensors, stripped
        tensors, stripped = wrapped[best], stripped + candidates[best]


def _common_prefix(names: Sequence[str] | Mapping[str, Any], fits: Callable[[Sequence[str]], bool]) -> str:
    """What all names begin with, part by part, where those of the model are left without it; else nothing."""
    prefix, rest = "", list(names)
    while rest and (part := f"{rest[0].partition('.')[0]}.") and all(name.startswith(part) for name in rest):
        prefix, rest = prefix + part, [name.removeprefix(part) for name in rest]
        if fits(rest):
            return prefix
    return ""


def load_failure(error: Exception, tensors: Sequence[str] = ()) -> str:
    """Why weights did not load, in one line: what torch lists after the library's own renaming, and their layout.

    Args:
        tensors: the names in the file.
    """
    text = str(error)
    if "Error(s) in loading state_dict" not in text:
        return f"{first_line(error)}{advice(tensors)}"
    parts = []
    for kind, what in (("Missing", "of the model's weights are missing"), ("Unexpected", "others are unexpected")):
        if listed := re.search(rf"{kind} key\(s\) in state_dict: (.*)\. *$", text, re.MULTILINE):
            keys = re.findall(r'"([^"]+)"', listed[1])
            parts.append(f"{len(keys)} {what}, first {keys[0]!r}")
    if size := re.search(r"size mismatch for (\S+): .*shape (.*) from checkpoint.*model is (.*)\.", text):
        shapes = [re.sub(r"torch\.Size\((.*)\)", r"\1", shape) for shape in size.groups()[1:]]
        parts.append(f"{size[1]} has shape {shapes[0]} where the model has {shapes[1]}")
    return ", ".join(parts) + advice(tensors)


def check_finite(model: nn.Module, weights: str) -> None:
    """Raise InputError where ``weights``, once loaded, have a value that is no number: every logit would be none.

    A decoder of captions may: no feature comes from it, and open_clip leaves a matrix of it unset.
    """
    for name, tensor in {**dict(model.named_parameters()), **_running(model)}.items():
        if name.startswith(OF_CAPTIONS):
            continue
        # a sum needs no memory; one that overflows is looked at again
        if tensor.is_floating_point() and not tensor.detach().sum().isfinite() and not tensor.isfinite().all():
            raise InputError(f"{weights}: {name} has values that are infinite or no numbers; the file is damaged")


def _running(model: nn.Module) -> dict[str, Tensor]:
    """The statistics of norms; a mask among the buffers is infinite by intent."""
    return {name: buffer for name, buffer in model.named_buffers() if "running_" in name}


def misfit(given: Mapping[str, Tensor], model: Mapping[str, tuple[int, ...]]) -> str:
    """The first weight in ``given`` that does not fit the shapes of ``model``, and whose layout the names are.

    Positions count by their width, as their number is interpolated; a text tower's names with or without ``text.``.
    """
    own = {name.removeprefix("text."): shape for name, shape in model.items()}
    theirs = {name.removeprefix("text."): tuple(tensor.shape) for name, tensor in given.items()}
    for name, shape in theirs.items():
        kept = slice(-1, None) if name.endswith(("positional_embedding", "pos_embed")) else slice(None)
        if name in own and shape[kept] != own[name][kept]:
            return f"{name} has shape {[*shape]} where the model has {[*own[name]]}{advice(list(given))}"
    other = next((name for name in theirs if name not in own), None)
    lacking = next((name for name in own if name not in theirs), None)
    said = f"it has {other!r}, which the model lacks" if other else f"it lacks {lacking!r}"
    return f"{said}{advice(list(given))}"


def advice(tensors: Sequence[str]) -> str:
    """Whose layout the names of tensors are, and what to do about it; empty where that is not known."""
    found = {layout: todo for pattern, (layout, todo) in LAYOUTS.items() if any(re.match(pattern, n) for n in tensors)}
    layout = next(iter(found), None)
    return "" if layout is None else f"; they have the names of {layout}: if that is another model, {found[layout]}"


def deeper_than(model: nn.Module, names: Sequence[str]) -> str | None:
    """The first name of a block after the last one of ``model``; the blocks before it alone would be half a model."""
    for name in names:
        module = model
        for part in name.split(".")[:-1]:
            children = dict(module.named_children())
            if part not in children:
                if part.isdigit() and children and all(child.isdigit() for child in children):
                    return name
                break
            module = children[part]
    return None
