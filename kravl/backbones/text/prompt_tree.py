"""Prompts as a prefix tree: under a causal mask the state of a token depends on the tokens up to it, and on no other.

Each distinct prefix of the prompts is one row of the linear layers. Attention gathers the rows of each prompt, for
prompts of one length at a time, so that nothing is padded.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class PromptTree(nn.Module):
    """The prefix tree of n prompts, each the tokens up to and including the one whose state is its feature.

    Attributes:
        tokens, positions: of each of the r rows, (r,); the row of a prefix comes after those of shorter ones of it.
        paths: for each length l, ascending, the rows of the p distinct prompts of that length, (p, l).
        in_paths: position of each row in the flattened, concatenated paths, (r,).
        leaves: for each given prompt its position among the distinct prompts, in the order of ``paths``, (n,).
    """

    tokens: Tensor
    positions: Tensor
    in_paths: Tensor
    leaves: Tensor

    def __init__(self, prompts: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        rows = {prefix: row for row, prefix in enumerate(dict.fromkeys(_prefixes(prompts)))}
        distinct = sorted(dict.fromkeys(prompts), key=len)
        position = {prompt: i for i, prompt in enumerate(distinct)}
        flat = [rows[prefix] for prefix in _prefixes(distinct)]
        in_paths = {row: i for i, row in reversed(list(enumerate(flat)))}
        self._add_buffer("tokens", [prefix[-1] for prefix in rows])
        self._add_buffer("positions", [len(prefix) - 1 for prefix in rows])
        self._add_buffer("in_paths", [in_paths[row] for row in range(len(rows))])
        self._add_buffer("leaves", [position[prompt] for prompt in prompts])
        self._lengths = sorted({len(prompt) for prompt in distinct})
        start = 0
        for length in self._lengths:
            count = sum(len(prompt) == length for prompt in distinct)
            self.register_buffer(f"_paths_{length}", _grid(flat[start : start + count * length], length), False)
            start += count * length

    @property
    def paths(self) -> list[Tensor]:
        return [self.get_buffer(f"_paths_{length}") for length in self._lengths]

    def num_rows(self) -> int:
        return len(self.tokens)

    def _add_buffer(self, name: str, values: Sequence[int]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)


def chunk_prompts(prompts: Sequence[tuple[int, ...]], max_rows: int) -> list[list[int]]:
    """Indices of the prompts of each tree, such that none has more than ``max_rows`` rows unless of a single prompt."""
    chunks: list[list[int]] = []
    rows = max_rows
    previous: tuple[int, ...] = ()
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):  # those that share a prefix side by side
        shared = _common_prefix(previous, prompts[i])
        if not chunks or rows + len(prompts[i]) - shared > max_rows:
            chunks.append([])
            rows = shared = 0
        chunks[-1].append(i)
        rows += len(prompts[i]) - shared
        previous = prompts[i]
    return chunks


def _prefixes(prompts: Iterable[tuple[int, ...]]) -> Iterable[tuple[int, ...]]:
    return (prompt[: i + 1] for prompt in prompts for i in range(len(prompt)))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _grid(rows: Sequence[int], length: int) -> Tensor:
    return torch.tensor(rows).view(-1, length)
