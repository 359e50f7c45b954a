"""A model of open_clip or timm without memory for its weights: what it is made of, and what kravl can do with it."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import timm
import torch
from breadth.hf_towers import without_values
from breadth.published import clip_weights, timm_weights
from torch import Tensor, nn

from kravl.adapters.injection.attention import SHORT, AdaptedAttention
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.parameter import AdapterList
from kravl.adapters.lora import LoRA
from kravl.backbones import tiny
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.cls_token import clip_pools_first_token, timm_pools_first_token
from kravl.backbones.preprocess import timm_preprocess
from kravl.backbones.structure.presets import count_sites, select_roles
from kravl.backbones.structure.roles import Role, roles
from kravl.backbones.text.tower import causal_text_tower
from kravl.backbones.timm_heads import head_inputs, heads
from kravl.backbones.vit import VitClassifier
from kravl.backbones.weights.timm_weights import UNFIT
from kravl.runtime.errors import InputError, first_line

CLASSES = 3
PRESETS = ("vision", "text", "both", "cliplora", "all")
FAILURES = (*UNFIT, ImportError, OSError, ArithmeticError, NotImplementedError)
Row = dict[str, Any]
Towers = dict[str, Callable[[], list[Tensor]]]  # tower -> its features


def names() -> list[tuple[str, str]]:
    """(library, name) of every model that the libraries ship, whatever else this process has registered."""
    tiny.register()
    shipped = {path.stem for path in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")} | {tiny.NAME}
    clip = [("open_clip", name) for name in open_clip.list_models() if name in shipped]
    return clip + [("timm", name) for name in timm.list_models()]


def surveyed(library: str, name: str) -> Row:
    """The row of a model; one that does not work says why."""
    row = _empty(library, name)
    try:
        with quietly():
            model = skeleton(library, name)
            row |= structure(library, name, model)
            row |= _clip(name, model) if library == "open_clip" else _timm(name, model)
        row["works"] = True
    except FAILURES as error:
        row["why"] = first_line(error)
    return row


def is_current(row: Row) -> bool:
    """Whether the model of a row is still made of what the row says, and the presets select the same."""
    try:
        with quietly():
            found = structure(row["library"], row["name"], skeleton(row["library"], row["name"]))
    except FAILURES as error:
        return not row["works"] and row["why"] == first_line(error)
    return all(row[key] == value for key, value in json.loads(json.dumps(found)).items())


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block models run without values, and without remarks on random weights and deprecated settings."""
    level = logging.root.level
    with without_values(), warnings.catch_warnings(action="ignore"):
        logging.root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.root.setLevel(level)


def skeleton(library: str, name: str) -> Any:
    """The model as kravl builds it, without memory for its weights."""
    kind = ClipClassifier if library == "open_clip" else VitClassifier
    return kind.skeleton(CLASSES, {"name": name, "pretrained": None if library == "open_clip" else False})


def structure(library: str, name: str, model: Any) -> Row:
    """What a model is made of: parameters and matrices by tower, and the matrices of each preset."""
    known = roles(model)
    chosen = {preset: select_named(known, preset) for preset in PRESETS}
    if library == "open_clip":
        sizes = _sizes(model)
    else:
        head = sum(parameter.numel() for part in heads(model) for parameter in part.parameters())
        sizes = {"image": sum(p.numel() for p in model.parameters()) - head}
    return {
        "parameters": sizes,
        "sites": count_sites(role for role in known if role.part_of is None),
        "presets": {preset: dict(Counter(role.tower for role in of_it)) for preset, of_it in chosen.items()},
    }


def _empty(library: str, name: str) -> Row:
    row: Row = {"library": library, "name": name, "family": family(library, name), "works": False, "why": ""}
    row |= {"parameters": {}, "image_size": None, "context_length": None, "sites": {}, "presets": {}}
    return row | {"preprocess": [], "extra": "", "fast": [], "forward": {}, "checkpointing": [], "unreached": []}


def family(library: str, name: str) -> str:
    """What models have in common: timm's file, or the kinds of the two towers in open_clip."""
    if library == "timm":
        return f"timm {timm.models._registry._model_to_module[name]}"
    tiny.register()
    config = open_clip.get_model_config(name)
    return f"{image_kind(config['vision_cfg'])} + {text_kind(config)}"


def image_kind(config: Mapping[str, Any]) -> str:
    if trunk := config.get("timm_model_name"):
        return f"timm {timm.models._registry._model_to_module[trunk]}"
    if isinstance(config.get("layers"), list):
        return "ResNet"
    return "ViT with attention pool" if config.get("attentional_pool") else "ViT"


def text_kind(config: Mapping[str, Any]) -> str:
    text = config["text_cfg"]
    if name := text.get("hf_model_name"):
        kind = next(kind for part, kind in HF_KINDS.items() if part in name)
    else:
        kind = "text without a mask" if text.get("no_causal_mask") else "text"
    return f"CoCa's {kind}" if "multimodal_cfg" in config else kind


HF_KINDS = {"roberta": "RoBERTa", "mt5": "mT5", "nllb": "NLLB"}


def _clip(name: str, model: Any) -> Row:
    config = open_clip.get_model_config(name)
    size = model.visual.image_size
    length = config["text_cfg"].get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    images = _images(size)
    tokens = torch.zeros(2, length, dtype=torch.long, device="meta")
    row: Row = {"image_size": _plain(size), "context_length": length, "preprocess": clip_weights(name, size)}
    fast = ["first_token"] if clip_pools_first_token(model.visual) else []
    fast += ["prompt_tree"] if _is_causal(model) else []
    towers: Towers = {"image": lambda: [model.encode_image(images)], "text": lambda: [model.encode_text(tokens)]}
    return row | {"extra": needs(config)} | _adaptation(model, towers, fast)


def needs(config: Mapping[str, Any]) -> str:
    """The extra of kravl that a model of open_clip needs."""
    text = config["text_cfg"]
    return "text" if text.get("hf_model_name") or text.get("hf_tokenizer_name") else ""


def _timm(name: str, model: Any) -> Row:
    size = timm_preprocess(model.pretrained_cfg, {}).image_size
    images = _images(size)
    row: Row = {"image_size": _plain(size), "preprocess": timm_weights(name, model)}
    fast = ["first_token"] if timm_pools_first_token(model) else []
    return row | _adaptation(model, {"image": lambda: head_inputs(model, images)}, fast)


def _images(size: int | Sequence[int]) -> Tensor:
    """Two of them, as norms over a batch need in training."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros(2, 3, height, width, device="meta")


def _plain(size: Any) -> Any:
    """One number for a square."""
    return size[0] if isinstance(size, Sequence) and len(set(size)) == 1 else size


def _sizes(model: Any) -> dict[str, int]:
    """Parameters of the two towers; the parts that write captions are in neither."""
    caption = sum(p.numel() for p in getattr(model, "text_decoder", nn.Identity()).parameters())
    image = sum(p.numel() for p in model.visual.parameters())
    return {"image": image, "text": sum(p.numel() for p in model.parameters()) - image - caption}


def _is_causal(model: Any) -> bool:
    """Whether kravl shares the beginnings of prompts; the mask, which has no values here, is made as open_clip does."""
    owner = model if isinstance(model, open_clip.CLIP) else model.text
    mask = getattr(owner, "attn_mask", None)
    if mask is not None:
        settings = {"context_length": len(mask), "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
        with torch.random.fork_rng(devices=[]):
            owner.attn_mask = open_clip.transformer.TextTransformer(**settings).attn_mask
    known = causal_text_tower(model) is not None
    if mask is not None:
        owner.attn_mask = mask
    return known


def _adaptation(model: Any, towers: Towers, fast: list[str]) -> Row:
    """Whether a gradient reaches what can be adapted, and how it is computed once it is."""
    chosen = select_named(roles(model), "all")
    outputs, lengths, checkpointing = _run(model, towers)
    if len({x.shape[1:] for x in outputs}) > 1 and len(towers) == 2:
        raise ValueError(f"features of images and of text cannot be compared: {[tuple(x.shape) for x in outputs]}")
    lost = unreached(model, outputs, chosen)
    inject(model, lambda o, i: LoRA(o, i, rank=1, alpha=1), [role.name for role in chosen])
    briefly = any(isinstance(module, AdaptedAttention) and length <= SHORT for module, length in lengths.items())
    return {
        "fast": [*fast, *(["short_attention"] if briefly else [])],
        "forward": dict(sorted(_forwards(model).items())),
        "unreached": lost,
        "checkpointing": checkpointing,
    }


def select_named(known: Sequence[Role], preset: str) -> list[Role]:
    """The matrices of a preset; none where the model has not what it names."""
    try:
        return select_roles(known, preset)
    except InputError:
        return []


def unreached(model: nn.Module, outputs: Sequence[Tensor], chosen: Sequence[Role]) -> list[str]:
    """The matrices that no gradient of the features reaches: their weights are no leaves of the features' graph."""
    reached, seen = set(), set()
    nodes = [x.grad_fn for x in outputs if x.grad_fn is not None]
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            reached.add(id(leaf))
        nodes += [following for following, _ in node.next_functions if following is not None]
    return [role.name for role in chosen if id(model.get_parameter(role.parameter)) not in reached]


def _run(model: Any, towers: Towers) -> tuple[list[Tensor], dict[nn.Module, int], list[str]]:
    """A forward pass of each tower with gradient checkpointing: features, tokens of each packed attention, and towers.

    These are the towers whose blocks would be computed again in a backward pass; here they are not.
    """
    lengths: dict[nn.Module, int] = {}
    calls: list[str] = []

    def note(attention: Any, arguments: Any) -> None:
        lengths[attention] = arguments[0].shape[1 if attention.batch_first else 0]

    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    hooks = [attention.register_forward_pre_hook(note) for attention in attentions]
    with suppress(AssertionError, AttributeError):  # as models say that they have none
        model.set_grad_checkpointing(True)
    model.train()
    outputs, checkpointing = [], []
    with _counted(calls):
        for tower, features in towers.items():
            calls.clear()
            outputs += features()
            checkpointing += [tower] if calls else []
    for hook in hooks:
        hook.remove()
    return outputs, lengths, checkpointing


def _counted(calls: list[str]) -> Any:
    """Within the block nothing is computed again; ``calls`` gets an entry for each part of a model that would be."""

    def with_hooks(*_: Any, **__: Any) -> Iterator[None]:
        calls.append("without reentry")
        yield

    class Reentrant:
        @staticmethod
        def apply(function: Callable[..., Any], _: bool, *arguments: Any) -> Any:
            calls.append("reentrant")
            return function(*arguments)

    # what torch.utils.checkpoint.checkpoint hands over to, whoever has imported it; a release of torch has some
    seen = {"CheckpointFunction": Reentrant} | dict.fromkeys(
        ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl"), with_hooks
    )
    there = {name: replacement for name, replacement in seen.items() if hasattr(torch.utils.checkpoint, name)}
    return patch.multiple(torch.utils.checkpoint, **there)


def _forwards(model: nn.Module) -> Counter[str]:
    """How often each class computes an adapted weight."""
    return Counter(
        type(module).__name__ for module in model.modules() if isinstance(module._modules.get("adapters"), AdapterList)
    )
