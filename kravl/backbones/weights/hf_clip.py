"""CLIP's weights as Hugging Face transformers names them, renamed as OpenAI does and open_clip reads."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

RENAMED = {
    r"^text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight$": "positional_embedding",
    r"^text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"^text_model\.final_layer_norm\.": "ln_final.",
    r"^text_projection\.weight$": "text_projection",
    r"^vision_model\.embeddings\.class_embedding$": "visual.class_embedding",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "visual.positional_embedding",
    r"^vision_model\.pre_layrnorm\.": "visual.ln_pre.",  # sic
    r"^vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
    r"^vision_model\.post_layernorm\.": "visual.ln_post.",
    r"^visual_projection\.weight$": "visual.proj",
    r"\.self_attn\.out_proj\.": ".attn.out_proj.",
    r"\.layer_norm(\d)\.": r".ln_\1.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
}
TRANSPOSED = ("text_projection.weight", "visual_projection.weight")
QUERY = re.compile(r"\.self_attn\.q_proj\.(weight|bias)$")


def is_hf_clip(names: Mapping[str, object]) -> bool:
    """Whether both towers and their projections have transformers' names."""
    return {*TRANSPOSED, "vision_model.pre_layrnorm.weight"} <= names.keys()


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under OpenAI's names; queries, keys and values as the rows of one matrix."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith(".position_ids") or re.search(r"\.self_attn\.[kv]_proj\.", name):
            continue
        if match := QUERY.search(name):
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            name, tensor = QUERY.sub(rf".attn.in_proj_{match[1]}", name), torch.cat(parts)
        elif name in TRANSPOSED:
            tensor = tensor.T
        for pattern, replacement in RENAMED.items():
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result
