"""Score images with this model by onnxruntime alone: python load.py IMAGE..."""

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ABOUT = json.loads((FOLDER / "export.json").read_text())
prepare = runpy.run_path(str(FOLDER / "pictures.py"))["prepare"]


def session(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(FOLDER / name, providers=["CPUExecutionProvider"])


classifier = session("classifier.onnx")  # images (n, 3, height, width) -> probabilities, logits (n, classes)
encoders = {  # of a CLIP: images, or tokens (n, context length) -> unit features (n, d)
    name: session(f"{name}_encoder.onnx") for name in ("image", "text") if (FOLDER / f"{name}_encoder.onnx").is_file()
}


def probabilities(pictures: Sequence[Image.Image]) -> np.ndarray:
    return classifier.run(["probabilities"], {"images": prepare(pictures, ABOUT["preprocess"])})[0]


def logits(pictures: Sequence[Image.Image]) -> np.ndarray:
    return classifier.run(["logits"], {"images": prepare(pictures, ABOUT["preprocess"])})[0]


def image_features(pictures: Sequence[Image.Image]) -> np.ndarray:
    return encoders["image"].run(None, {"images": prepare(pictures, ABOUT["preprocess"])})[0]


def features_of_tokens(tokens: np.ndarray) -> np.ndarray:
    """Of a class with these prompts, as tokens (prompts, context length): the unit mean of their unit features."""
    mean = encoders["text"].run(None, {"tokens": tokens})[0].mean(axis=0)
    return mean / np.linalg.norm(mean)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (scores,) = probabilities([Image.open(path)])
        print(path, ABOUT["class_names"][int(scores.argmax())], f"{float(scores.max()):.3f}")
