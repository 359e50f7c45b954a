"""What each weight matrix of an encoder is: which tower's, and which part of it, found by structure.

Attention is told by what belongs together (a query and a key, or both in one matrix); which of them a matrix is, only
its name tells, in the words of open_clip, timm and transformers; further matrices of attention, such as those of
relative positions and those that mix heads, are ``attention``. What is in a block and no part of attention is MLP or
convolution, so that a block of an unknown kind is adapted whole. Names are those of sites: of a module or a bare
parameter, and ``<attention>.qkv`` or its rows ``.q``, ``.k``, ``.v`` where these are one weight. The encoder may lie on
the meta device.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from kravl.backbones.structure.blocks import is_stem, is_within, outer_blocks, tower_of, towers
from kravl.backbones.timm_heads import heads

RGB = 3  # channels
KINDS = (
    "qkv",
    "q",
    "k",
    "v",
    "qk",
    "kv",
    "out",
    "attention",
    "mlp",
    "conv",
    "depthwise",
    "projection",
    "patch",
    "head",
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MATRICES = (nn.Linear, *CONVOLUTIONS)
BARE = ("proj", "projection", "proj_weight")  # endings of parameters that are matrices, and no embeddings
# what a part of attention is called -> what it is
PARTS = {
    "qkv": ("qkv", "qkv_proj", "in_proj", "in_proj_weight", "wqkv", "c_attn", "query_key_value", "to_qkv"),
    "q": ("q", "q_proj", "q_proj_weight", "query", "wq", "to_q", "to_query", "q_lin", "conv_q"),
    "k": ("k", "k_proj", "k_proj_weight", "key", "wk", "to_k", "to_key", "k_lin"),
    "v": ("v", "v_proj", "v_proj_weight", "value", "wv", "to_v", "to_value", "v_lin"),
    "qk": ("qk",),
    "kv": ("kv", "kv_proj", "to_kv"),
    "out": ("proj", "out_proj", "attn_out_proj", "c_proj", "o", "o_proj", "wo", "out", "out_lin", "to_out", "output"),
}
KIND_OF = {name: kind for kind, names in PARTS.items() for name in names}
MLP = re.compile(r"(^|\.)(mlp|ffn|feed_forward)\w*(\.|$)")
BERT_OUT = re.compile(r"(^|\.)attention\.output\.dense$")  # BERT's, beside its queries and not with them
CLASSIFIER = re.compile(r"(^|\.)(head\w*|fc|classifier\w*|pre_logits|last_linear|pooler)(\.|$)")


class Role(NamedTuple):
    """A matrix (out, in) by the name of its site; a convolution is its kernel unfolded to (out, in / groups * k * k).

    ``parameter`` is the name of the weight, and ``part_of`` that of the site of all of its rows, where it is some.
    """

    name: str
    tower: str  # image | text
    kind: str  # of KINDS
    shape: tuple[int, int]
    parameter: str
    part_of: str | None = None


def roles(encoder: nn.Module) -> list[Role]:
    """Every matrix and convolution of the towers of ``encoder``, in the order of its modules."""
    prefixes = towers(encoder)
    places = {tower: _Places(encoder, roots) for tower, roots in prefixes.items()}
    attentions = {name: module for name, module in encoder.named_modules() if _is_attention(module)}
    # timm says which modules are new for new classes, also where they end an attention pool, as in resnet50_clip
    classifiers = (
        {m for head in heads(encoder) for m in head.modules()} if hasattr(encoder, "get_classifier") else set()
    )
    found: list[Role] = []
    for name, module, parameter in _matrices(encoder):
        tower = tower_of(name, prefixes)
        if tower is not None:
            owner = _owner(name, attentions)
            kind = "head" if module in classifiers else _kind(name, module, places[tower], owner)
            kind = "projection" if kind == "head" and len(prefixes) > 1 else kind  # into the space that towers share
            role = Role(name, tower, kind, _shape(module, parameter), parameter)
            found += _with_thirds(role, module, None if owner is None else owner[1])
    return found


def _matrices(encoder: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name of the module or bare parameter, the module, and the name of the weight."""
    for name, module in encoder.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, MATRICES) and module._parameters.get("weight") is not None:
            yield name or "weight", module, f"{prefix}weight"
        for param, tensor in module._parameters.items():
            is_matrix = tensor is not None and tensor.dim() == 2 and tensor.is_floating_point()
            if is_matrix and param.endswith(BARE):
                yield prefix + param, module, prefix + param


def _shape(module: nn.Module, parameter: str) -> tuple[int, int]:
    weight: Any = module._parameters[parameter.rpartition(".")[2]]
    return weight.shape[0], weight.numel() // weight.shape[0]


def _with_thirds(role: Role, module: nn.Module, attention: Any) -> Iterator[Role]:
    """The sites that a matrix is: itself, and its rows for q, k and v where they are thirds of one weight."""
    prefix, dot, last = role.name.rpartition(".")
    if last != "in_proj_weight" and not (isinstance(module, nn.Linear) and last == "qkv"):
        yield role
        return
    fused = role._replace(name=f"{prefix}{dot}qkv")
    yield fused
    width, remainder = divmod(role.shape[0], 3)
    # of these the rows are q, k and v of one head after the other: maxxvit; efficientformer and tiny_vit
    by_head = getattr(attention, "head_first", False) or hasattr(attention, "val_dim")
    if remainder == 0 and not by_head:
        for part in "qkv":
            yield Role(f"{prefix}{dot}{part}", role.tower, part, (width, role.shape[1]), role.parameter, fused.name)


def _is_attention(module: nn.Module) -> bool:
    return _has_queries(module) or re.search(r"(Attention|Attn)(\d*d)?$", type(module).__name__) is not None


def _has_queries(module: nn.Module) -> bool:
    """Whether a query meets a key in this module, and not in a part of it."""
    names = [*module._modules, *(name for name, parameter in module._parameters.items() if parameter is not None)]
    kinds = {KIND_OF.get(name.lower()) for name in names}
    return bool(kinds & {"qkv", "qk"}) or {"q", "k"} <= kinds or {"q", "kv"} <= kinds


def _owner(name: str, attentions: Mapping[str, nn.Module]) -> tuple[str, nn.Module] | None:
    """The innermost of ``attentions`` that ``name`` is a part of, by name."""
    while name:
        name = name.rpartition(".")[0]
        if name in attentions:
            return name, attentions[name]
    return None


class _Places:
    """The blocks of a tower, and what comes before and after them."""

    def __init__(self, encoder: nn.Module, roots: Sequence[str]) -> None:
        modules = dict(encoder.named_modules())
        self.blocks = [block for root in roots if root in modules for block in outer_blocks(modules[root], root)]
        self._order = {name: i for i, name in enumerate(modules)}

    def has(self, name: str) -> bool:
        """Whether ``name`` is in a block."""
        return any(is_within(name, block) for block in self.blocks)

    def end(self, name: str) -> str | None:
        """``patch`` or ``head`` for what is before or after the blocks, None for what is in or between them."""
        if self.has(name):
            return None
        if is_stem(name):
            return "patch"
        if name not in self._order or CLASSIFIER.search(name):  # a bare parameter projects features
            return "head"
        if not self.blocks:
            return None
        position = self._order[name]
        if position < self._order[self.blocks[0]]:
            return "patch"
        return "head" if position > self._order[self.blocks[-1]] else None


def _kind(name: str, module: Any, places: _Places, owner: tuple[str, nn.Module] | None) -> str:
    is_conv = isinstance(module, CONVOLUTIONS)
    if is_conv and module.groups == module.in_channels > 1:
        return "depthwise"
    if is_conv and module.in_channels == RGB and not places.has(name):
        return "patch"
    if owner is not None:
        part = name.removeprefix(owner[0]).lstrip(".").partition(".")[0].lower()
        if part in KIND_OF or (_has_queries(owner[1]) and not MLP.match(part)):
            return KIND_OF.get(part, "attention")
    if BERT_OUT.search(name):
        return "out"
    if owner is None and (end := places.end(name)):  # what pools with attention is like a block
        return end
    pointwise = is_conv and all(size == 1 for size in module.kernel_size) and module.groups == 1
    return "conv" if is_conv and not (pointwise and MLP.search(name)) else "mlp"
