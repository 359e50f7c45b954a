"""Score images with this model by timm alone: python load.py IMAGE..."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ABOUT = json.loads((FOLDER / "export.json").read_text())

model = timm.create_model(f"local-dir:{FOLDER}", pretrained=True).eval()
preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)


@torch.no_grad()
def logits(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return model(torch.stack([preprocess(picture.convert("RGB")) for picture in pictures]))


def probabilities(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return (logits(pictures) / ABOUT["temperature"]).softmax(dim=1)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (scores,) = probabilities([Image.open(path)])
        print(path, ABOUT["class_names"][int(scores.argmax())], f"{float(scores.max()):.3f}")
