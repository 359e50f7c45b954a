"""The towers of an encoder and their repeated blocks, found by structure: nothing is asked of a model's name.

The encoder may lie on the meta device.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn

IMAGE, TEXT = "image", "text"
# children of an encoder that no feature of an image or a class passes through: CoCa's decoder writes captions
OF_CAPTIONS = ("text_decoder",)
# what a list of blocks calls its members: 11, layer4 (ResNet), b3 and s4 (RegNet), denselayer16 (DenseNet)
NUMBERED = re.compile(r"(layer|block|stage|s|b|denseblock|denselayer|cell_)?\d+")
# modules that turn pixels or tokens into the input of the first block; a ResNet within one has blocks of its own
STEM = re.compile(
    r"(^|\.)(stem|conv_stem|patch_embeds?\d*|patch_embedding|embeddings|pos_embed)(\.|$)(?!(.*\.)?backbone(\.|$))"
)


def towers(encoder: nn.Module) -> dict[str, list[str]]:
    """The prefixes of the modules and bare parameters of each tower: ``image``, and ``text`` where one encodes text.

    What is in neither (CoCa's caption decoder, logit scales) never sees the gradient of a classifier.
    """
    if not _has_text(encoder):
        return {IMAGE: [""]}
    names = [name for name, _ in [*encoder.named_children(), *encoder.named_parameters(recurse=False)]]
    left_out = {"visual", "logit_scale", "logit_bias", "class_weight", "context", "feature_head", *OF_CAPTIONS}
    return {IMAGE: ["visual"], TEXT: [name for name in names if name not in left_out]}


def _has_text(encoder: Any) -> bool:
    return hasattr(encoder, "encode_text") and isinstance(getattr(encoder, "visual", None), nn.Module)


def tower_of(name: str, prefixes: dict[str, list[str]]) -> str | None:
    """The tower of `towers` that the module or parameter ``name`` is part of."""
    for tower, roots in prefixes.items():
        if any(is_within(name, root) for root in roots):
            return tower
    return None


def is_within(name: str, prefix: str) -> bool:
    """Whether ``name`` is ``prefix`` or lies below it; everything lies below the empty one."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def is_stem(name: str) -> bool:
    """Whether a module of this name turns pixels or tokens into the input of the first block, or is part of one."""
    return STEM.search(name) is not None


def blocks(module: nn.Module, name: str = "") -> list[str]:
    """The names of the repeated blocks below ``module``, in order; those of staged towers one after the other."""
    found: list[str] = []
    for outer, member in _members(module, name):
        inner = list(_inner(member, outer))
        found += inner or [outer]
    return found


def outer_blocks(module: nn.Module, name: str = "") -> list[str]:
    """The names of the largest repeated parts below ``module``: stages where there are stages, else its blocks."""
    return [member for member, _ in _members(module, name)]


def _members(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The first members of lists of blocks on each path below ``module``, none of them within another."""
    members = set() if is_stem(name) else set(_alike(module))
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        if key in members:
            yield path, child
        else:
            yield from _members(child, path)


def _alike(module: nn.Module) -> list[str]:
    """The keys of children that are members of a list of blocks.

    They are numbered, and hold more than one matrix: the layers of a stem do not. A T5 block numbers its parts too,
    attention and MLP: a list of nothing but different classes is none.
    """
    numbered = {k: child for k, child in module.named_children() if NUMBERED.fullmatch(k) and _holds_several(child)}
    kinds = Counter(type(child) for child in numbered.values())
    return [] if len(kinds) > 1 and max(kinds.values()) == 1 else list(numbered)


def _holds_several(module: nn.Module) -> bool:
    if not module._modules:
        return False
    return sum(1 for parameter in module.parameters() if parameter.dim() > 1) > 1


def _inner(member: nn.Module, name: str) -> Iterator[str]:
    """The blocks of a stage; none where ``member`` is itself a block, which is most of what it holds."""
    lists = [(name, member)]
    lists += [(f"{name}.{k}", c) for k, c in member.named_children() if isinstance(c, nn.Sequential | nn.ModuleList)]
    for path, container in lists:
        children = [(f"{path}.{key}", container.get_submodule(key)) for key in _alike(container)]
        if 2 * sum(_size(child) for _, child in children) > _size(member):
            for inner, child in children:
                yield from list(_inner(child, inner)) or [inner]
            return


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
