"""The text tower of an open_clip model, without the work that cannot change a prompt's feature.

A tower is inspected first, and one of another kind runs unchanged. Under a causal mask nothing after the pooled token
is computed, prefixes that prompts share are computed once (`PromptTree`), and the last block is computed for the pooled
token alone. Prompts would then share the random numbers of dropout, such as LoRA's, that each should draw for itself:
while a tower drops entries, its prompts are only truncated to the longest of them, unless they are told to share.

On a GPU the order in which the gradients of shared rows are added varies from pass to pass, unless PyTorch's
deterministic algorithms are on, as kravl's trainer has them by default (``trainer.deterministic``).
"""

from collections.abc import Callable
from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, Transformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kravl.backbones.attention import attend, is_stepwise, project
from kravl.backbones.text.prompt_tree import PromptTree
from kravl.runtime.errors import InputError


class CausalTextTower:
    """Encodes prompts with the tower's own modules; `causal_text_tower` inspects a model and creates it.

    Args:
        owner: the module that holds the tower's parts: for CLIP the model itself.
        context: gives the vectors (..., d) that tokens below 0 stand for, -1 for the first; see context.py.
        shared_dropout: whether prompts share the random numbers of a prefix that they share.
    """

    def __init__(
        self,
        owner: CLIP | TextTransformer,
        context: Callable[[], Tensor] | None = None,
        shared_dropout: bool = False,
    ) -> None:
        self._owner, self._context, self._shared_dropout = owner, context, shared_dropout
        self._transformer: Transformer = owner.transformer

    def ends(self, tokens: Tensor) -> Tensor:
        """Position (n,) of the pooled token in each of n prompts."""
        pool_type, eos = _pooling(self._owner)
        return (tokens if pool_type == "argmax" else (tokens == eos).int()).argmax(dim=-1)

    def can_share_prefixes(self) -> bool:
        """Whether the states of shared prefixes may be computed once: nothing random in the tower is each prompt's."""
        if not all(is_stepwise(block.attn) for block in self._transformer.resblocks):
            return False
        return self._shared_dropout or not self.has_dropout(training=True)

    def has_dropout(self, training: bool = False) -> bool:
        """Whether anything in the tower drops at random while it trains, or, with ``training``, does so now."""
        parts = (part for part in self._transformer.modules() if isinstance(part, nn.Dropout) and part.p > 0)
        return any(part.training or not training for part in parts)

    def encode_tree(self, tree: PromptTree) -> Tensor:
        """Features (n, d) of the tree's prompts."""
        *blocks, last = self._transformer.resblocks
        x = self._embed(tree.tokens, tree.positions)
        recompute = self._transformer.grad_checkpointing and torch.is_grad_enabled()
        for block in blocks:
            arguments = (block, x, tree)
            x = checkpoint(_next_states, *arguments, use_reentrant=False) if recompute else _next_states(*arguments)
        pooled = x[torch.cat([paths[:, -1] for paths in tree.paths])]
        x = pooled + last.ls_1(last.attn.out_proj(_attend_from_leaves(last, x, tree)))
        x = x + last.ls_2(last.mlp(last.ln_2(x)))
        return self._finish(x)[tree.leaves]

    def encode_truncated(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Features (n, d) of prompts (n, length), pooled at ``ends`` (n,); nothing after the last of them matters."""
        length = tokens.shape[1]
        x = self._embed(tokens, torch.arange(length, device=tokens.device))
        x = self._transformer(x, attn_mask=self._owner.attn_mask[:length, :length])
        return self._finish(x[torch.arange(len(x), device=x.device), ends])

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self._looked_up(tokens) + self._owner.positional_embedding[positions]

    def _looked_up(self, tokens: Tensor) -> Tensor:
        if self._context is None:
            return self._owner.token_embedding(tokens)
        x = self._owner.token_embedding(tokens.clamp(min=0)).flatten(0, -2)
        vectors = self._context().flatten(0, -2)
        rows = (tokens.flatten() < 0).nonzero().flatten()
        return x.index_copy(0, rows, vectors[-1 - tokens.flatten()[rows]].to(x.dtype)).view(*tokens.shape, -1)

    def _finish(self, x: Tensor) -> Tensor:
        x = self._owner.ln_final(x)
        projection = self._owner.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def causal_text_tower(
    model: nn.Module, context: Callable[[], Tensor] | None = None, shared_dropout: bool = False
) -> CausalTextTower | None:
    """The tower of ``model``; None where a feature may depend on tokens after the pooled one."""
    if isinstance(model, CLIP) and type(model).encode_text is CLIP.encode_text:
        owner: CLIP | TextTransformer = model
    elif isinstance(model, CustomTextCLIP) and isinstance(text := model.text, TextTransformer):
        if text.cls_emb is not None or text.use_pad_mask or text.output_tokens:
            return None
        owner = text
    else:
        return None
    known = type(owner.transformer) is Transformer and all(map(_is_plain, owner.transformer.resblocks))
    if not known or not _is_causal(owner.attn_mask) or not _pooling(owner)[0]:
        return None
    return CausalTextTower(owner, context, shared_dropout)


def require_dropout_to_share(model: nn.Module) -> None:
    """Raise InputError unless prompts of the adapted ``model`` would share dropout if they were told to."""
    given, tower = "backbone.build.shared_dropout=true", causal_text_tower(model)
    if tower is None:
        raise InputError(f"{given}: no prefix is shared in a text tower of this kind; leave it out")
    if not tower.has_dropout():
        raise InputError(f"{given}: nothing in the text tower drops anything; leave it out, or set adapter.dropout")


def _pooling(owner: CLIP | TextTransformer) -> tuple[str | None, int]:
    """``argmax`` or ``eos``, and the token that ends a text; None for any other pooling."""
    is_clip = isinstance(owner, CLIP)
    kind, eos = (owner.text_pool_type, owner.text_eos_id) if is_clip else (owner.pool_type, owner.eos_id)
    return (kind if kind in ("argmax", "eos") else None), eos


def _is_plain(block: Any) -> bool:
    return type(block) is ResidualAttentionBlock and is_stepwise(block.attn)


def _is_causal(mask: Tensor | None) -> bool:
    if mask is not None and mask.is_meta:  # a model without memory; the loaded one is looked at again
        return True
    return mask is not None and torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))


def _next_states(block: ResidualAttentionBlock, x: Tensor, tree: PromptTree) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(_attend_along_paths(block, x, tree)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _attend_along_paths(block: ResidualAttentionBlock, x: Tensor, tree: PromptTree) -> Tensor:
    """Attention output (r, d) of each row, which attends to the rows of its prefixes."""
    rows = project(block.attn, block.ln_1(x))
    outputs = []
    for paths in tree.paths:
        q, k, v = rows.index_select(0, paths.flatten()).view(*paths.shape, -1).chunk(3, dim=-1)
        outputs.append(attend(block.attn, q, k, v, is_causal=True).flatten(0, 1))
    return torch.cat(outputs).index_select(0, tree.in_paths)


def _attend_from_leaves(block: ResidualAttentionBlock, x: Tensor, tree: PromptTree) -> Tensor:
    """Attention output (p, d) of the last token of each distinct prompt, which attends to all of it."""
    rows = project(block.attn, block.ln_1(x))
    width = rows.shape[-1] // 3
    q, kv = rows[:, :width], rows[:, width:]
    outputs = []
    for paths in tree.paths:
        k, v = kv.index_select(0, paths.flatten()).view(*paths.shape, -1).chunk(2, dim=-1)
        outputs.append(attend(block.attn, q[paths[:, -1:]], k, v).flatten(0, 1))
    return torch.cat(outputs)
