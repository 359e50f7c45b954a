"""The check of an export: another process, in which kravl cannot be imported, loads it and scores the same pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from kravl.data.loading.transforms import CentreCrop, Normalization
from kravl.run.prediction.scorer import Scorer
from kravl.runtime.errors import printable
from kravl.runtime.files import PACKAGE

PICTURES = ((97, 131), (200, 90), (64, 64))  # height and width in pixels: upright, lying, square
TEXTS = 8  # classes whose prompts the other library encodes
SHOWN = 400  # characters of what the other process says
INPUTS = "inputs.npz"
WORKER = Path(__file__).with_name("worker.py")
KRAVL = str(PACKAGE.parent)


class ExportError(RuntimeError):
    """The other library does not load the export, or finds other logits; nothing is left of it."""


class Reference(NamedTuple):
    """What kravl finds: pictures, their logits (n, C), and unit text features (few, d) of the first classes.

    ``temperature`` is what logits are divided by to give probabilities.
    """

    pictures: list[Image.Image]
    logits: torch.Tensor
    text: torch.Tensor | None = None
    scale: float = 1.0
    temperature: float = 1.0


def reference(scorer: Scorer) -> Reference:
    """Logits of a few made pictures, of other sizes than the model's, in single precision."""
    pictures = [picture(height, width, seed) for seed, (height, width) in enumerate(PICTURES)]
    preprocess = scorer.classifier.preprocess
    crop, normalize = CentreCrop.of(preprocess), Normalization(preprocess.mean, preprocess.std)
    images = normalize([crop(each).transpose(2, 0, 1) for each in pictures])
    return Reference(pictures, scorer(images))


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Coloured waves with some noise: smooth as a photograph, so that a wrong resize shows and a rounding does not."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / random.uniform(3, 30) + y / random.uniform(3, 30) + channel) for channel in range(3)]
    values = 127 + 100 * np.stack(waves, axis=2) + random.normal(0, 8, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def difference(folder: Path, expected: Reference) -> float:
    """The largest difference of a logit, relative to the largest logit where that is above 1.

    Absolute differences would say more of the scale than of the model: cosines of float32 times a scale of 100 differ
    by up to 1e-5 between two orders of summation of the same weights.

    Raises:
        ExportError: the other library does not load the folder.
    """
    with TemporaryDirectory() as place:
        command = [sys.executable, "-I", str(WORKER), str(folder), str(write_inputs(Path(place), expected)), KRAVL]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        return float(json.loads(done.stdout.splitlines()[-1])["difference"])
    except (LookupError, ValueError, TypeError) as error:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"the export does not load without kravl: {printable(reason)[:SHOWN]}") from error


def write_inputs(folder: Path, expected: Reference) -> Path:
    """What the other process reads."""
    arrays: dict[str, Any] = {f"picture{i}": np.asarray(each) for i, each in enumerate(expected.pictures)}
    arrays |= {"logits": expected.logits.numpy(), "scale": np.float32(expected.scale)}
    arrays["temperature"] = np.float64(expected.temperature)
    if expected.text is not None:
        arrays["text"] = expected.text[:TEXTS].numpy()
    np.savez(folder / INPUTS, **arrays)
    return folder / INPUTS
