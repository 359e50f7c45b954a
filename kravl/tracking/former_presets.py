"""What the files of backbones and methods said until 0.1.0 of presets that now follow from the model's structure.

A run of then is the run of the same command: both choose the same matrices and parameters.
"""

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
# shipped backbone -> rank of the LoRA that is comparable to KRAdapter; alpha was twice as much
RANKS = {
    "clip_vitb16": 26,
    "clip_vitb32": 26,
    "clip_vitl14": 31,
    "kravl_tiny": 16,
    "vit_b16": 28,
    "vit_s14": 20,
    "vit_tiny_random": 15,
}
LAST_BLOCKS = {"clip_vitl14": 2, "kravl_tiny": 3}  # which of them, where not the first of its family
NOW = {"rank": None, "alpha": None}


def as_formerly_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ``settings`` of a run of any release, what follows from the structure as files said it until 0.1.0.

    For a backbone that was not shipped then, presets that were those of a shipped one are left out.
    """
    current = dict(settings)
    if isinstance(backbone := current.get("backbone"), Mapping):
        current["backbone"] = _backbone(backbone)
    unfreeze = current.get("unfreeze")
    if isinstance(unfreeze, list) and len(unfreeze) == 1 and unfreeze[0] in PARAMETERS:
        current["unfreeze"] = f"${{backbone.parameters.{unfreeze[0]}}}"
    return current


def _backbone(written: Mapping[str, Any]) -> dict[str, Any]:
    result, name = dict(written), str(written.get("name"))
    for key, former in (("sites", SITES), ("parameters", PARAMETERS)):
        if isinstance(presets := written.get(key), Mapping):
            result[key] = {preset: said for preset, said in presets.items() if said not in former.get(preset, ())}
    if name not in RANKS:
        return result
    if written.get("lora") == NOW:
        result["lora"] = {"rank": RANKS[name], "alpha": 2 * RANKS[name]}
    if result.get("sites") == {} == result.get("parameters"):
        result |= former_presets(name)
    return result


def former_presets(name: str) -> dict[str, Any]:
    """The ``sites`` and ``parameters`` of a backbone shipped with 0.1.0."""
    family = int(name.startswith("vit"))  # of patterns: OpenAI's names, timm's
    sites = {preset: said[family] for preset, said in SITES.items() if family < len(said)}
    parameters = {preset: said[min(family, len(said) - 1)] for preset, said in PARAMETERS.items()}
    parameters["last_two_blocks"] = PARAMETERS["last_two_blocks"][LAST_BLOCKS.get(name, family)]
    return {"sites": sites, "parameters": parameters}
