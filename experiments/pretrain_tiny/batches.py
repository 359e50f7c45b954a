"""Random batches of augmented pictograms with captions and the teacher's view of them, made on one device."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from augment import augment
from captions import TEMPLATES, Concepts, Draws
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional as F

from kravl.backbones.tiny import CONFIG, MERGES

PATCHES, KEPT = 64, 32


class Batch(NamedTuple):
    """2C pictures of C concepts: the first C, then the same concepts as others drew them."""

    images: Tensor  # (2C, 3, 64, 64), normalised
    kept: Tensor | None  # (2C, 32): the patches of each picture that are not left out
    tokens: Tensor  # (C, n), cut to the longest caption
    true: Tensor  # bool (2C, C): which caption is true of which picture
    seen: Tensor  # (2C, d): the teacher's view, of length one; zero where the teacher is silent


class Corpus:
    """What corpus.py and teacher.py left, on ``device``."""

    def __init__(self, folder: Path, device: torch.device, seed: int) -> None:
        concepts = Concepts(folder / "pictures.json")
        self.pictures = torch.from_numpy(np.load(folder / "pictures.npy")).to(device)
        self.mono = torch.tensor([record["mono"] for record in concepts.records], device=device)
        known = np.load(folder / "teacher.npz")
        targets = torch.zeros(len(self.pictures), known["targets"].shape[1])
        targets[torch.from_numpy(known["index"])] = F.normalize(torch.from_numpy(known["targets"]).float(), dim=1)
        self.targets = targets.to(device)
        self.draws = Draws(concepts, device)
        self.tokens = captions(self.draws.vocabulary).to(device)
        self.mean, self.std = (
            torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        )
        self.random = torch.Generator(device).manual_seed(seed)

    def batches(self, concepts: int, plan: Iterable[tuple[float, bool]]) -> Iterator[Batch]:
        """One batch for every strength of augmentation and whether all patches are kept."""
        for (strength, whole), drawn in zip(plan, self.draws.batches(concepts, self.random), strict=False):
            index, words, templates, true = drawn
            images = augment(self.pictures[index], self.mono[index], self.random, strength)
            kept = None if whole else self._kept(len(images))
            tokens = self.tokens[words, templates]
            tokens = tokens[:, : int((tokens != 0).sum(1).max())]
            yield Batch((images - self.mean) / self.std, kept, tokens.long(), true, self.targets[index])

    def _kept(self, count: int) -> Tensor:
        return torch.rand(count, PATCHES, generator=self.random, device=self.random.device).argsort(1)[:, :KEPT]


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made while the one before it is learnt from."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def captions(vocabulary: list[str]) -> Tensor:
    """Every word in every template as int16 tokens (words, templates, context length)."""
    length = json.loads(CONFIG.read_text())["text_cfg"]["context_length"]
    tokenizer = SimpleTokenizer(str(MERGES), context_length=length)
    of_template = {t: tokenizer([t.format(word) for word in vocabulary]).short() for t in dict.fromkeys(TEMPLATES)}
    return torch.stack([of_template[t] for t in TEMPLATES], 1)
