"""Learned context tokens in front of the class names (CoOp: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134).

A class's prompt is ``[start] v_1 ... v_M class name . [end]``. The M vectors v, as wide as the token embedding, are all
that trains. Among tokens v_i is the number ``-1 - i``, which the text tower looks up in the context and not in its own
table: prompts share the context as they share any other prefix, so that it is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kravl.backbones.text.tokens import Tokenizer
from kravl.backbones.text.tower import causal_text_tower
from kravl.runtime.errors import InputError

STD = 0.02  # of the normal numbers that a context starts from, as CoOp's
TRIED = 4  # times the context length: how long a class name may be and still be counted


@dataclass(frozen=True)
class ContextSettings:
    """What is learned in front of the class names.

    Args:
        tokens: how many vectors, M.
        init: words of M tokens that they start from, such as ``a photo of a``; None: normal numbers.
        per_class: vectors of its own for each class, in place of the same for all.
    """

    tokens: int
    init: str | None = None
    per_class: bool = False


def context_prompts(tokenizer: Tokenizer, class_names: Sequence[str], context: ContextSettings) -> Tensor:
    """Tokens (C, length) of one prompt a class, with ``-1 - i`` for the i-th vector of the context.

    Raises:
        InputError: context and class name are longer together than the text tower's context; which class, and how long,
            or ``context.init`` has another number of tokens.
    """
    empty = tokenizer([""])[0]
    length, padding = len(empty), empty[-1]
    if context.init is not None and (found := _length(tokenizer([context.init]), padding) - 2) != context.tokens:
        raise InputError(
            f"context_init={context.init!r} has {found} tokens and context_tokens={context.tokens}; pass "
            f"context_tokens={found}, or other words"
        )
    rows = []
    for i, name in enumerate(class_names):
        words = tokenizer([f"{name}."], context_length=TRIED * length)
        size = _length(words, padding)
        if words[0, 0] != empty[0]:
            raise InputError("the tokenizer marks no start of a text, after which a learned context could stand")
        if size + context.tokens > length:
            raise _too_long(name, size, context.tokens, length)
        first = context.tokens * i if context.per_class else 0
        vectors = -1 - torch.arange(first, first + context.tokens)
        rows.append(torch.cat([words[0, :1], vectors, words[0, 1 : length - context.tokens]]))
    return torch.stack(rows)


def _length(tokens: Tensor, padding: Tensor) -> int:
    """Tokens of a text (1, n) from its start to its end, without padding."""
    return int((tokens[0] != padding).nonzero().max()) + 1


def _too_long(name: str, size: int, wanted: int, length: int) -> InputError:
    most = length - size
    remedy = f"context_tokens={most} is the most" if most > 0 else "no context fits; give it a shorter name"
    return InputError(
        f"context_tokens={wanted} does not fit: the class {name[:80]!r} takes {size} tokens with start, full stop and "
        f"end, which makes {size + wanted}, and the text tower takes {length}; {remedy}"
    )


def require_context_tower(model: nn.Module, name: str) -> None:
    """Raise InputError where learned vectors cannot stand in for tokens in the text tower of ``model``."""
    if causal_text_tower(model) is None:
        raise InputError(
            f"context_tokens: the text tower of {name!r} is not a causal transformer of open_clip's own, in whose "
            "table of token embeddings learned vectors can stand; choose another CLIP, or context_tokens=0"
        )


@torch.no_grad()
def initial_context(
    embedding: nn.Embedding, tokenizer: Tokenizer, context: ContextSettings, num_classes: int
) -> Tensor:
    """The vectors that training starts from, (M, d), or (C, M, d) where each class has its own."""
    table = embedding.weight
    if context.init is None:
        shape = (num_classes, context.tokens) if context.per_class else (context.tokens,)
        vectors = torch.empty(*shape, table.shape[1], device=table.device)
        return nn.init.normal_(vectors, std=STD).to(torch.promote_types(table.dtype, torch.float32))
    words = tokenizer([context.init])[0, 1 : 1 + context.tokens].to(table.device)
    vectors = table[words].to(torch.promote_types(table.dtype, torch.float32))
    return vectors.expand(num_classes, -1, -1).clone() if context.per_class else vectors.clone()
