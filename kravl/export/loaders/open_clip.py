"""Score images with this model by open_clip alone: python load.py IMAGE..."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parent
ABOUT = json.loads((FOLDER / "export.json").read_text())
MERGES = FOLDER / "merges.txt.gz"  # of a tokenizer that is not open_clip's own

model: Any
model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{FOLDER}")
model.eval()
tokenizer = open_clip.get_tokenizer(f"local-dir:{FOLDER}", **({"bpe_path": str(MERGES)} if MERGES.is_file() else {}))
classes = load_file(FOLDER / "class_features.safetensors")["class_features"]  # (classes, d)


@torch.no_grad()
def logits(pictures: Sequence[Image.Image]) -> torch.Tensor:
    images = torch.stack([preprocess(picture.convert("RGB")) for picture in pictures])
    return ABOUT["scale"] * model.encode_image(images, normalize=True) @ classes.T


@torch.no_grad()
def text_features(prompts: Sequence[str]) -> torch.Tensor:
    """Of a class with these prompts: the unit mean of their unit features."""
    mean = model.encode_text(tokenizer(list(prompts)), normalize=True).mean(dim=0)
    return mean / mean.norm()


def probabilities(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return (logits(pictures) / ABOUT["temperature"]).softmax(dim=1)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (scores,) = probabilities([Image.open(path)])
        print(path, ABOUT["class_names"][int(scores.argmax())], f"{float(scores.max()):.3f}")
