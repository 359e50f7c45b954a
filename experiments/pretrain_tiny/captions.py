"""What the pictures are called: concepts, their captions, and batches in which a concept is drawn twice."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

TEMPLATES = (
    *("{}", "{}", "{}", "a drawing of a {}.", "a drawing of a {}.", "an icon of a {}.", "a picture of a {}."),
    *("a pictogram of a {}.", "a {}.", "an emoji of a {}.", "a photo of a {}.", "a sign that means {}."),
)
NAMED = 0.5  # share of captions that say a concept's own name, where it has others


class Concepts:
    """Pictures grouped by what they show.

    Attributes:
        names: of the concepts.
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
        self.weights = torch.tensor(weight) / sum(weight)


class Draws:
    """Random batches of concepts, each with two pictures and a caption; on a device, without a loop over concepts."""

    def __init__(self, concepts: Concepts, device: torch.device) -> None:
        self.weights = concepts.weights.to(device)
        self.sets = _Ragged([range(len(sets)) for sets in concepts.pictures], device)
        self.pictures = _Ragged([pictures for sets in concepts.pictures for pictures in sets], device)
        self.vocabulary = sorted({word for words in concepts.words for word in words})
        number = {word: i for i, word in enumerate(self.vocabulary)}
        self.words = _Ragged([[number[word] for word in words] for words in concepts.words], device)
        self.says = torch.zeros(len(concepts.names), len(self.vocabulary), dtype=torch.bool, device=device)
        for row, words in enumerate(concepts.words):
            self.says[row, [number[word] for word in words]] = True

    def batches(self, concepts: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Endless: pictures (2C,), words (C,), templates (C,), and which word is true of which picture (2C, C)."""
        device = random.device
        while True:
            chosen = torch.multinomial(self.weights, concepts, generator=random)
            dice = torch.rand(7, concepts, generator=random, device=device)
            drawn_by = self.sets.count[chosen]
            first = (dice[0] * drawn_by).long()
            other = (first + 1 + (dice[1] * (drawn_by - 1)).long()) % drawn_by  # another designer where there is one
            sets = self.sets.first[chosen] + torch.stack([first, other])
            pictures = self.pictures.pick(sets, dice[2:4])
            words = self.words.pick(chosen, torch.where(dice[4] < NAMED, torch.zeros_like(dice[5]), dice[5]))
            true = self.says[chosen][:, words]
            yield pictures.reshape(-1), words, (dice[6] * len(TEMPLATES)).long(), true.repeat(2, 1)


class _Ragged:
    """Lists of different lengths in one tensor."""

    def __init__(self, lists: list, device: torch.device) -> None:
        self.count = torch.tensor([len(items) for items in lists], device=device)
        self.first = self.count.cumsum(0) - self.count
        self.items = torch.tensor([item for items in lists for item in items], device=device)

    def pick(self, which: Tensor, dice: Tensor) -> Tensor:
        """One item of each list ``which``; ``dice`` in [0, 1), where 0 is the first item."""
        return self.items[self.first[which] + (dice * self.count[which]).long()]


def _interest(words: tuple[str, ...]) -> float:
    """Concepts with keywords are things rather than parts of an interface; there are 250 flags."""
    if words[0].startswith("flag"):
        return 0.3
    return 8.0 if len(words) > 1 else 1.0
