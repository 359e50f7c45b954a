"""Score images with this adapter by PEFT on open_clip's own model: python load.py IMAGE...

PEFT knows its method once the ``extensions`` of export.json are imported.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import open_clip
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "base"
ABOUT = json.loads((HERE / "export.json").read_text())
MERGES = FOLDER / "merges.txt.gz"  # of a tokenizer that is not open_clip's own
for extension in ABOUT["extensions"]:
    import_module(extension)

base: Any
base, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{FOLDER}")
adapted: Any = PeftModel.from_pretrained(base, HERE).eval()
model = adapted.base_model.model  # open_clip's, its layers with the adapter beside them
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
