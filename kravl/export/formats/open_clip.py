"""A folder that open_clip loads as ``local-dir:FOLDER``, on the hub as ``hf-hub:ORG/NAME``."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from kravl.export.plain import OWN, PlainModel

TOLERANCE = 1e-5
TWO_TOWERS = "open_clip"
MERGES = "merges.txt.gz"


def write(model: PlainModel, folder: Path) -> list[str]:
    """Config, weights, tokenizer and class features; returns a line for each thing that the format cannot hold."""
    assert model.head is not None
    config = model_config(model)
    merges = config["text_cfg"].get("tokenizer_kwargs", {}).pop("bpe_path", None)
    if merges:
        shutil.copyfile(merges, folder / MERGES)
    if hasattr(model.clip.tokenizer, "save_pretrained"):  # of Hugging Face
        model.clip.tokenizer.save_pretrained(str(folder))
    state = {name: tensor for name, tensor in model.encoder.state_dict().items() if name not in OWN}
    save_file(_apart(state), folder / "open_clip_model.safetensors", {"format": "pt"})
    save_file({"class_features": model.head.contiguous()}, folder / "class_features.safetensors")
    known = model.encoder.visual.preprocess_cfg
    preprocess = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1)
    (folder / "open_clip_config.json").write_text(text + "\n")
    return ["open_clip's config has no place for class names and their features: class_features.safetensors"]


def model_config(model: PlainModel) -> dict[str, Any]:
    """open_clip's config of the model, which downloads nothing."""
    config = copy.deepcopy(open_clip.get_model_config(model.settings["name"]))
    config["quick_gelu"] = bool(model.clip.provenance()["quick_gelu"])
    for tower, key in (("vision_cfg", "timm_model_pretrained"), ("text_cfg", "hf_model_pretrained")):
        if config[tower].get(key):
            config[tower][key] = False
    return config


def _apart(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies: safetensors stores no memory twice."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
