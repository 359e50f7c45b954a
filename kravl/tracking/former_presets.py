"""What the files of backbones and methods said until 0.1.0 of presets that now follow from the model's structure.

A run of then is the run of the same command: both choose the same matrices and parameters.
"""

import re
from collections.abc import Mapping
from typing import Any

SITES = {
    "vision": (["visual.*.attn.qkv", "visual.*.mlp.c_*"], ["blocks.*.attn.qkv", "blocks.*.mlp.fc*"]),
    "text": (["transformer.*.attn.qkv", "transformer.*.mlp.c_*"],),
    "both": (["*.attn.qkv", "*.mlp.c_*"], ["blocks.*.attn.qkv", "blocks.*.mlp.fc*"]),
    "cliplora": (["*.attn.[qkv]"], ["blocks.*.attn.[qkv]"]),
    "all": (
        ["*.attn.qkv", "*.attn.out_proj", "*.mlp.c_*"],
        ["blocks.*.attn.qkv", "blocks.*.attn.proj", "blocks.*.mlp.fc*"],
    ),
}
_OF_IMAGES = "visual.*resblocks.{}.* visual.*resblocks.{}.*"
PARAMETERS = {
    "norms": (["*ln_*"], ["*norm*"]),
    "biases": (["*bias"],),
    "last_two_blocks": (
        ["*resblocks.10.*", "*resblocks.11.*"],
        ["blocks.10.*", "blocks.11.*"],
        [
            "visual.*resblocks.22.*",
            "visual.*resblocks.23.*",
            "transformer.resblocks.10.*",
            "transformer.resblocks.11.*",
        ],
        ["visual.*resblocks.3.*", "visual.*resblocks.4.*", "transformer.resblocks.0.*", "transformer.resblocks.1.*"],
    ),
}
# backbone -> rank of the LoRA that is comparable to KRAdapter; alpha was twice as much
RANKS = {
    "clip_vitb16": 26,
    "clip_vitb32": 26,
    "clip_vitl14": 31,
    "kravl_tiny": 16,
    "vit_b16": 28,
    "vit_s14": 20,
    "vit_tiny_random": 15,
}
NOW = {"rank": None, "alpha": None}
REFERENCE = re.compile(r"\$\{backbone\.parameters\.(\w+)\}")


def without_former_presets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ``settings`` of a run as they are written today."""
    current = dict(settings)
    if isinstance(backbone := current.get("backbone"), Mapping):
        current["backbone"] = dict(backbone)
        for key, former in (("sites", SITES), ("parameters", PARAMETERS)):
            if isinstance(presets := backbone.get(key), Mapping):
                kept = {name: patterns for name, patterns in presets.items() if patterns not in former.get(name, ())}
                current["backbone"][key] = kept
        rank = RANKS.get(str(backbone.get("name")))
        if rank is not None and backbone.get("lora") == {"rank": rank, "alpha": 2 * rank}:
            current["backbone"]["lora"] = dict(NOW)
    if isinstance(unfreeze := current.get("unfreeze"), str) and (preset := REFERENCE.fullmatch(unfreeze)):
        current["unfreeze"] = [preset[1]]
    return current
