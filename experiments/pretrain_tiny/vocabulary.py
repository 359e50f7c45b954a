"""Byte pairs of the words that pictograms are called by, in the format of open_clip's tokenizer.

    python experiments/pretrain_tiny/vocabulary.py CORPUS_FOLDER MERGES.txt.gz

Byte-pair encoding as in Sennrich et al., ACL 2016 (https://arxiv.org/abs/1508.07909).
"""

import gzip
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from captions import TEMPLATES, Concepts
from rich.progress import track

MERGES = 3000
Word = tuple[str, ...]


def counts(concepts: Concepts) -> Counter[Word]:
    """How often each word is a name or keyword, as its letters."""
    words: Counter[str] = Counter()
    for names in concepts.words:
        for name in (*names, *TEMPLATES):
            words.update(re.findall(r"[a-z]+", name.lower()))
    return Counter({(*word[:-1], word[-1] + "</w>"): number for word, number in words.items()})


def merged(word: Word, pair: tuple[str, str]) -> Word:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def byte_pairs(words: Counter[Word], number: int) -> list[tuple[str, str]]:
    pairs = []
    for _ in track(range(number), "byte pairs"):
        found: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                found[pair] += count
        best = max(found, key=lambda pair: (found[pair], pair))
        pairs.append(best)
        # a merge may make two spellings one, so the counts are added up again
        again: Counter[Word] = Counter()
        for word, count in words.items():
            again[merged(word, best)] += count
        words = again
    return pairs


def main(corpus: Path, out: Path) -> None:
    pairs = byte_pairs(counts(Concepts(corpus / "pictures.json")), MERGES)
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in pairs)])
    with out.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        file.write(text.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
