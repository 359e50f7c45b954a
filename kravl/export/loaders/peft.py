"""Score images with this adapter by PEFT on transformers' CLIPModel: python load.py IMAGE...

Where export.json lists ``extensions``, PEFT knows its method once these are imported.
"""

import json
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "base"
ABOUT = json.loads((HERE / "export.json").read_text())
for extension in ABOUT["extensions"]:
    import_module(extension)
adapted: Any = PeftModel.from_pretrained(CLIPModel.from_pretrained(FOLDER), HERE).eval()
model = adapted.base_model.model  # the CLIPModel, its layers with the LoRA beside them
tokenizer: Any = CLIPTokenizer.from_pretrained(FOLDER)
classes = load_file(FOLDER / "class_features.safetensors")["class_features"]  # (classes, d)


def prepare(pictures: Sequence[Image.Image]) -> torch.Tensor:
    if (FOLDER / "preprocessor_config.json").is_file():
        processor = CLIPImageProcessorPil.from_pretrained(FOLDER)
        return processor([picture.convert("RGB") for picture in pictures], return_tensors="pt")["pixel_values"]
    prepared = runpy.run_path(str(FOLDER / "pictures.py"))["prepare"](pictures, ABOUT["preprocess"])
    return torch.from_numpy(prepared)


@torch.no_grad()
def logits(pictures: Sequence[Image.Image]) -> torch.Tensor:
    images = prepare(pictures)
    features = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
    return ABOUT["scale"] * torch.nn.functional.normalize(features, dim=-1) @ classes.T


@torch.no_grad()
def text_features(prompts: Sequence[str]) -> torch.Tensor:
    """Of a class with these prompts: the unit mean of their unit features."""
    tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    features = model.text_projection(model.text_model(**tokens).pooler_output)
    return torch.nn.functional.normalize(torch.nn.functional.normalize(features, dim=-1).mean(dim=0), dim=-1)


def probabilities(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return (logits(pictures) / ABOUT["temperature"]).softmax(dim=1)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (scores,) = probabilities([Image.open(path)])
        print(path, ABOUT["class_names"][int(scores.argmax())], f"{float(scores.max()):.3f}")
