"""What the pictures are called: concepts, their captions, and batches in which a concept is drawn twice."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TEMPLATES = (
    *("{}", "{}", "{}", "a drawing of a {}.", "a drawing of a {}.", "an icon of a {}.", "a picture of a {}."),
    *("a pictogram of a {}.", "a {}.", "an emoji of a {}.", "a photo of a {}.", "a sign that means {}."),
)


class Concepts:
    """Pictures grouped by what they show.

    Attributes:
        pictures: for each concept, the pictures of each set that draws it.
        words: for each concept, its name, then its keywords.
    """

    def __init__(self, records_file: Path) -> None:
        self.records = json.loads(records_file.read_text())
        by_set: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        keywords: dict[str, set[str]] = defaultdict(set)
        for i, record in enumerate(self.records):
            if record["concept"]:
                by_set[record["concept"]][record["set"]].append(i)
                keywords[record["concept"]].update(record["keywords"])
        self.names = sorted(by_set)
        self.pictures = [list(by_set[name].values()) for name in self.names]
        self.words = [(name, *sorted(keywords[name] - {name})) for name in self.names]
        # common concepts more often, but not in proportion
        weight = [len(sets) ** 0.5 * _interest(words) for sets, words in zip(self.pictures, self.words, strict=True)]
        self.weights = np.asarray(weight) / sum(weight)

    def batches(self, concepts: int, seed: int) -> Iterator[tuple[Tensor, list[str], Tensor]]:
        """Endless: indices of pictures (2C,), captions (C,), and which caption is true of which picture (2C, C)."""
        random = np.random.default_rng(seed)
        while True:
            chosen = random.choice(len(self.names), concepts, replace=False, p=self.weights)
            pairs = [self._two(self.pictures[c], random) for c in chosen]
            words = [self._word(self.words[c], random) for c in chosen]
            true = torch.tensor([[word in self.words[c] for word in words] for c in chosen])
            captions = [TEMPLATES[random.integers(len(TEMPLATES))].format(word) for word in words]
            yield torch.tensor(pairs).T.reshape(-1), captions, true.repeat(2, 1)

    @staticmethod
    def _two(sets: list[list[int]], random: np.random.Generator) -> tuple[int, int]:
        first, second = random.choice(len(sets), 2, replace=len(sets) < 2)
        return (sets[first][random.integers(len(sets[first]))], sets[second][random.integers(len(sets[second]))])

    @staticmethod
    def _word(words: tuple[str, ...], random: np.random.Generator) -> str:
        return words[0] if len(words) == 1 or random.random() < 0.5 else words[random.integers(1, len(words))]


def _interest(words: tuple[str, ...]) -> float:
    """Concepts with keywords are things rather than parts of an interface; there are 250 flags."""
    if words[0].startswith("flag"):
        return 0.3
    return 8.0 if len(words) > 1 else 1.0
