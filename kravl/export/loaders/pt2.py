"""Score images with this model by torch alone: python load.py IMAGE..."""

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ABOUT = json.loads((FOLDER / "export.json").read_text())
prepare = runpy.run_path(str(FOLDER / "pictures.py"))["prepare"]

classifier = torch.export.load(FOLDER / "classifier.pt2").module()  # images (n, 3, h, w) -> logits


@torch.no_grad()
def logits(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return classifier(torch.from_numpy(prepare(pictures, ABOUT["preprocess"])))


def probabilities(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return (logits(pictures) / ABOUT["temperature"]).softmax(dim=1)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (scores,) = probabilities([Image.open(path)])
        print(path, ABOUT["class_names"][int(scores.argmax())], f"{float(scores.max()):.3f}")
