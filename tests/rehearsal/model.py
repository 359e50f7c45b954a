"""A CLIP of the shipped backbones' family, small enough for a rehearsal: random weights in a folder of open_clip's."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
# a timm ViT of four tokens, in place of the larger ones
VIT = ("backbone.build.name=vit_tiny_patch16_224", "backbone.build.pretrained=false", "backbone.build.image_size=32")


def clip(folder: Path) -> tuple[str, ...]:
    """The settings that put the small CLIP, written to ``folder`` where it is not there, in place of a larger one."""
    if not (folder / "open_clip_config.json").exists():
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**CONFIG)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors"
        )
        preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"backbone.build.name=local-dir:{folder}", "backbone.build.pretrained=null"
