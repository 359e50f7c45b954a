"""What a backbone is called in tables and folders: after the model that it is, also where a setting changes it."""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST = 100  # the name of a run has more, and is that of a folder
FILES = (".safetensors", ".pth.tar", ".pth", ".pt", ".bin", ".npz", ".npy", ".ckpt")


def backbone_name(shipped: str, model: str, pretrained: Any, *, _parent_: Any) -> str:
    """OmegaConf's resolver for ``name`` of a backbone's file: ``${backbone_name:clip_vitb16,ViT-B-16,openai}``.

    The name ``shipped`` is that of ``model`` with the weights ``pretrained``, which the file builds; with another
    ``build.name`` or ``build.pretrained`` the model names itself.
    """
    build = _parent_.get("build") or {}
    built = build.get("name", model), build.get("pretrained", pretrained)
    return shipped if built == (model, pretrained) else name_after(*built)


def name_after(model: str, pretrained: Any) -> str:
    """A plain name for ``model`` with the weights ``pretrained``, as in ``backbone.build``.

    Example:
        >>> name_after("RN50", "openai")
        'rn50_openai'
        >>> name_after("vit_base_patch16_224.mae", True)
        'vit_base_patch16_224_mae'
        >>> name_after("ViT-B-16", "/weights/dtd best.pt")
        'vit_b_16_dtd_best'
        >>> name_after("hf-hub:timm/ViT-B-16-SigLIP", None)
        'timm_vit_b_16_siglip'
    """
    schema, _, place = str(model).rpartition(":")
    if schema:  # it brings its own weights
        parts = [Path(place).name if schema == "local-dir" else place]
    elif pretrained is True:
        parts = [place]
    else:
        parts = [place, _weights(str(pretrained)) if pretrained else "random"]
    plain = re.sub(r"\W+", "_", unicodedata.normalize("NFC", "_".join(parts))).strip("_").lower()
    return plain[:LONGEST] or "model"


def _weights(pretrained: str) -> str:
    """A tag, or the name of a file without what says how it is stored."""
    name = Path(pretrained).name
    suffix = next((suffix for suffix in FILES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] if suffix else name


def with_backbone_name(settings: dict[str, Any], config: Any) -> dict[str, Any]:
    """``settings`` as written, with the backbone's name that ``config`` has: a record need not know how it was made."""
    backbone = settings.get("backbone")
    if isinstance(backbone, Mapping) and "${backbone_name:" in str(backbone.get("name")):
        settings = {**settings, "backbone": {**backbone, "name": config.backbone.name}}
    return settings
