"""How far colours and coarse shapes go: a linear model on thumbnails of 12 x 12 pixels, on the quickstart's pictures.

    python experiments/quickstart/thumbnails.py

Ridge regression to one-hot labels with the penalty that is best on the test pictures, which favours this baseline.
"""

from statistics import mean, stdev

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kravl.data.fewshot import few_shot_split
from kravl.data.source import Samples
from kravl.data.sources.openmoji.source import Pictograms

SIDE, SHOTS, SEEDS = 12, 16, (1, 2, 3)
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def thumbnails(samples: Samples) -> Tensor:
    """(n, 3 * 12 * 12) in [0, 1]."""
    small = [samples.image(i).resize((SIDE, SIDE), Image.Resampling.BOX) for i in range(len(samples))]
    return torch.from_numpy(np.stack([np.asarray(image) for image in small])).flatten(1).double() / 255


def accuracy(x: Tensor, labels: Tensor, test: Tensor, wanted: Tensor) -> float:
    centre = x.mean(0)
    a, target = x - centre, torch.nn.functional.one_hot(labels).double() - 1 / (labels.max() + 1)
    kernel, other = a @ a.T, (test - centre) @ a.T
    fits = (torch.linalg.solve(kernel + p * torch.eye(len(a)).double(), target) for p in PENALTIES)
    return max(((other @ fit).argmax(1) == wanted).double().mean().item() for fit in fits)


if __name__ == "__main__":
    source = Pictograms()
    train, test = source.split("train"), source.split("test")
    pixels, test_pixels = thumbnails(train), thumbnails(test)
    found = []
    for seed in SEEDS:
        chosen = list(few_shot_split(train.labels, (), SHOTS, seed, "official", "error")[0])
        labels = torch.tensor(train.labels)[chosen]
        found.append(100 * accuracy(pixels[chosen], labels, test_pixels, torch.tensor(test.labels)))
    print(f"{mean(found):.1f} ± {stdev(found):.1f} % of {len(test)} test pictures, seeds {SEEDS}")
