"""A folder that ``transformers.CLIPModel.from_pretrained`` loads, with its tokenizer and its image processor."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kravl.backbones.preprocess import Preprocess
from kravl.backbones.weights.hf_clip import TRANSPOSED
from kravl.config.schema import Config
from kravl.export.pictures import copy_pictures
from kravl.export.plain import OWN, PlainModel
from kravl.runtime.errors import InputError

TOLERANCE = 1e-5
TWO_TOWERS = "transformers' CLIPModel"
RENAMED = {
    r"^token_embedding\.": "text_model.embeddings.token_embedding.",
    r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"^ln_final\.": "text_model.final_layer_norm.",
    r"^text_projection$": TRANSPOSED[0],
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.conv1\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",  # sic
    r"^visual\.transformer\.resblocks\.": "vision_model.encoder.layers.",
    r"^visual\.ln_post\.": "vision_model.post_layernorm.",
    r"^visual\.proj$": TRANSPOSED[1],
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.ln_(\d)\.": r".layer_norm\1.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}
PACKED = re.compile(r"\.attn\.in_proj_(weight|bias)$")
SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's names -> OpenAI's
RESAMPLE = {"bicubic": 3, "bilinear": 2}  # Pillow's numbers


def require(cfg: Config, method: str | None, alpha: float) -> None:
    """Raise InputError where transformers is missing."""
    if find_spec("transformers") is None:
        raise InputError("--to transformers needs transformers: pip install 'kravl[text]'")


def write(model: PlainModel, folder: Path) -> list[str]:
    """Config, weights, tokenizer, image processor and class features."""
    assert model.head is not None
    from transformers import CLIPConfig, CLIPModel

    _refuse_other_towers(model)
    tokens = model.clip.tokenizer
    config = CLIPConfig(**clip_config(model.encoder, tokens.eot_token_id, tokens.sot_token_id))
    with torch.device("meta"):
        module = CLIPModel(config)
    state = renamed({name: t for name, t in model.encoder.state_dict().items() if name not in OWN})
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if differing := sorted(expected.items() ^ {name: tuple(t.shape) for name, t in state.items()}.items()):
        raise InputError(f"transformers' CLIPModel cannot hold {model.run.cfg.backbone.name}: {differing[0]}")
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    save_file({"class_features": model.head.contiguous()}, folder / "class_features.safetensors")
    _write_tokenizer(tokens, folder)
    notes = ["a CLIPModel has no place for class names and their features: class_features.safetensors"]
    return notes + _write_processor(model.run.classifier.preprocess, folder)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under transformers' names, queries, keys and values apart; undoes `hf_clip.renamed`."""
    result = {}
    for name, tensor in state.items():
        target = name
        for pattern, replacement in RENAMED.items():
            target = re.sub(pattern, replacement, target)
        if match := PACKED.search(target):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                result[PACKED.sub(rf".self_attn.{part}_proj.{match[1]}", target)] = rows
        else:
            result[target] = tensor.T if target in TRANSPOSED else tensor
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in result.items()}


def _refuse_other_towers(model: PlainModel) -> None:
    """Raise InputError for towers that compute something else than CLIPModel's."""
    clip, visual = model.encoder, model.encoder.visual
    plain = type(clip) is open_clip.CLIP and type(visual) is open_clip.transformer.VisionTransformer
    if plain:
        plain = visual.attn_pool is None and visual.pool_type == "tok" and isinstance(clip.text_projection, Tensor)
        plain = plain and clip.text_pool_type == "argmax" and not isinstance(visual.ln_pre, nn.Identity)
    if not plain or not isinstance(model.clip.tokenizer, open_clip.tokenizer.SimpleTokenizer):
        raise InputError(
            "transformers' CLIPModel holds OpenAI's two towers and their tokenizer; those of "
            f"{model.run.cfg.backbone.name} are others: --to open_clip or onnx"
        )


def clip_config(clip: Any, eos: int, bos: int) -> dict[str, Any]:
    """Of transformers' CLIPConfig, for an open_clip ``clip`` and its tokens of the end and the begin of a text."""
    visual = clip.visual
    height, _ = visual.image_size
    vision = _tower(visual.transformer) | {"image_size": height, "patch_size": visual.patch_size[0]}
    text = _tower(clip.transformer) | {
        "vocab_size": clip.token_embedding.num_embeddings,
        "max_position_embeddings": clip.positional_embedding.shape[0],
        **{"eos_token_id": eos, "bos_token_id": bos, "pad_token_id": eos},
    }
    width = clip.text_projection.shape[1]
    towers = {"vision_config": vision | {"projection_dim": width}, "text_config": text | {"projection_dim": width}}
    return towers | {"projection_dim": width}


def _tower(transformer: Any) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        "hidden_size": block.attn.embed_dim,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": "gelu" if isinstance(block.mlp.gelu, nn.GELU) else "quick_gelu",
        "layer_norm_eps": block.ln_1.eps,
    }


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    from transformers import CLIPTokenizer

    vocabulary = {SPECIAL.get(token, token): number for token, number in tokenizer.encoder.items()}
    merges = [" ".join(pair) for pair in tokenizer.bpe_ranks]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    context = tokenizer.context_length
    CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=context).save_pretrained(folder)


def _write_processor(preprocess: Preprocess, folder: Path) -> list[str]:
    """preprocessor_config.json, where transformers' processor can do what the model expects."""
    size, resize = preprocess.image_size, preprocess.resize
    if preprocess.resize_mode != "shortest" or not isinstance(size, int) or not isinstance(resize, int):
        copy_pictures(folder)
        return [f"transformers' processor has no {preprocess.resize_mode} resize: pictures.py prepares images"]
    config = {
        "image_processor_type": "CLIPImageProcessor",
        **{f"do_{step}": True for step in ("resize", "center_crop", "rescale", "normalize", "convert_rgb")},
        "size": {"shortest_edge": resize},
        "crop_size": {"height": size, "width": size},
        "resample": RESAMPLE[preprocess.interpolation],
        "rescale_factor": 1 / 255,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return ["transformers' default processor resizes otherwise: CLIPImageProcessorPil has the pixels of training"]
