"""Runs in a process of its own: loads an export by its load.py, refuses kravl, and compares logits.

python -I worker.py FOLDER INPUTS.npz PLACE_OF_KRAVL

Of an adapter whose method `kravl.peft` adds to PEFT that alone is let in, with what it stands on.
"""

import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXTENSION = "kravl.peft"
WITH_EXTENSION = (EXTENSION, "kravl.adapters", "kravl.runtime")


class WithoutKravl:
    """An import hook that refuses kravl, but for ``allowed``: what it has written is to be loaded by others alone."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = tuple(allowed)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        within = any(name == each or name.startswith(f"{each}.") for each in self._allowed)
        if name.partition(".")[0] == "kravl" and not within and not (name == "kravl" and self._allowed):
            raise ImportError(f"{name} is not to be imported here")


def main(arguments: Sequence[str]) -> None:
    folder, inputs, place = arguments
    about = json.loads((Path(folder) / "export.json").read_text()) if (Path(folder) / "export.json").is_file() else {}
    of_peft = about.get("extensions") == [EXTENSION]
    sys.meta_path.insert(0, WithoutKravl(WITH_EXTENSION if of_peft else ()))
    if of_peft:
        sys.path.append(place)
    with np.load(inputs, allow_pickle=False) as given:
        expected, scale, temperature = given["logits"], float(given["scale"]), float(given["temperature"])
        pictures = [Image.fromarray(given[f"picture{i}"]) for i in range(len(expected))]
        text = given.get("text")
    loaded = runpy.run_path(str(Path(folder) / "load.py"))
    logits = np.asarray(loaded["logits"](pictures), dtype=np.float64)
    alone = np.asarray(loaded["logits"](pictures[:1]), dtype=np.float64)  # a batch of another size
    differences = [np.abs(logits - expected).max(), np.abs(alone - expected[:1]).max()]
    certain = np.abs(np.asarray(loaded["probabilities"](pictures)) - softmax(logits / temperature)).max()
    if text is not None and (found := text_features(loaded, about)):
        differences.append(scale * np.abs(np.stack(found) - text).max())
    relative = float(max(differences)) / max(1.0, float(np.abs(expected).max()))
    print(json.dumps({"difference": max(relative, float(certain))}))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def text_features(loaded: Mapping[str, Any], about: Mapping[str, Any]) -> list[np.ndarray]:
    """Of the first classes, from their prompts or the tokens of these; none where the format has no text tower."""
    if "text_features" in loaded:
        return [np.asarray(loaded["text_features"](prompts)) for prompts in about["prompts_of_classes"]]
    if "features_of_tokens" in loaded:
        return [loaded["features_of_tokens"](np.array(tokens)) for tokens in about["tokens_of_classes"]]
    return []


if __name__ == "__main__":
    main(sys.argv[1:])
