"""Where an image tower looks: attention over the patches, of what the tower pools, in the layer that pools it.

Of the last block's class token, the mean over its heads, as DINO shows it (Caron et al., ICCV 2021,
https://arxiv.org/abs/2104.14294, figure 1); of the query where a tower pools by attention, as SigLIP and CoCa do. Not
followed through earlier layers, as attention rollout would (Abnar and Zuidema, ACL 2020,
https://arxiv.org/abs/2005.00928). It says which patches were read, which need not be why a class was chosen (Jain and
Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186).

A tower is inspected: one that pools otherwise (a mean of patches, a residual network) has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import AttentionalPooler
from open_clip.transformer import VisionTransformer as ClipVision
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer as TimmVision
from torch import Tensor, nn

from kravl.backbones.attention import is_stepwise, project
from kravl.backbones.cls_token import clip_pools_first_token, timm_pools_first_token


class AttentionMap(NamedTuple):
    """The attention of one query to all tokens, the last of which are the patches ``grid`` (height, width).

    ``weights`` gives it, averaged over the heads (n, tokens), for what ``module`` returns in each pass of the tower.
    """

    module: nn.Module
    weights: Callable[[Tensor], Tensor]
    grid: tuple[int, int]

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """A list to which each pass of the tower within the block adds its maps (n, height, width), on the CPU.

        A map sums to at most 1: what the class token, or a register, attends to in itself is not in it.
        """
        maps: list[Tensor] = []

        def record(module: nn.Module, given: tuple[Tensor, ...], returned: Tensor) -> None:
            height, width = self.grid
            patches = self.weights(returned)[:, -height * width :]
            maps.append(patches.unflatten(1, self.grid).float().cpu())

        handle = self.module.register_forward_hook(record)
        try:
            yield maps
        finally:
            handle.remove()


def attention_map(tower: Any) -> AttentionMap | None:
    """The attention of what ``tower``, of open_clip or timm, pools; None where it has no such query."""
    tower = tower.trunk if isinstance(tower, TimmModel) else tower
    if isinstance(tower, ClipVision):
        return _of_clip(tower)
    if type(tower) is TimmVision and (grid := tower.patch_embed.grid_size):
        return _of_timm(tower, grid)
    return None


def _of_clip(tower: Any) -> AttentionMap | None:
    if clip_pools_first_token(tower):
        last = tower.transformer.resblocks[-1]
        return AttentionMap(last.ln_1, _class_token(last.attn), tower.grid_size) if is_stepwise(last.attn) else None
    pool: Any = tower.attn_pool
    original = type(pool) is AttentionalPooler and tower.attn_pool_contrastive is None and tower.pool_type == "tok"
    return AttentionMap(pool.ln_k, _first_query(pool), tower.grid_size) if original else None


def _of_timm(tower: Any, grid: tuple[int, int]) -> AttentionMap | None:
    if timm_pools_first_token(tower):
        attention = tower.blocks[-1].attn
        return AttentionMap(attention.qkv, _timm_class_token(attention), grid)
    pool = tower.attn_pool
    pools = type(pool) is AttentionPoolLatent and pool.latent_len == 1
    return AttentionMap(pool.kv, _latent(pool), grid) if pools else None


def _class_token(attention: Any) -> Callable[[Tensor], Tensor]:
    """Of normalised tokens (n, l, d): open_clip's attention gives q and k of them to nobody."""

    def weights(x: Tensor) -> Tensor:
        q, k, _ = project(attention, x).chunk(3, dim=-1)
        q, k = (rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for rows in (q[:, :1], k))
        return _mean_over_heads(q, k)

    return weights


def _first_query(pool: Any) -> Callable[[Tensor], Tensor]:
    """Of CoCa's pooling, whose first query is the image's."""

    def weights(x: Tensor) -> Tensor:
        query = pool.ln_q(pool.query[:1]).expand(len(x), -1, -1)
        return pool.attn(query, x, x, need_weights=True)[1][:, 0]

    return weights


def _timm_class_token(attention: Any) -> Callable[[Tensor], Tensor]:
    """Of the packed q, k and v of all tokens."""

    def weights(qkv: Tensor) -> Tensor:
        heads = qkv.unflatten(-1, (3, attention.num_heads, attention.head_dim))
        q, k, _ = heads.permute(2, 0, 3, 1, 4).unbind(0)
        return _mean_over_heads(attention.q_norm(q[:, :, :1]), attention.k_norm(k))

    return weights


def _latent(pool: Any) -> Callable[[Tensor], Tensor]:
    """Of the packed k and v of all tokens, for the one latent query of timm's attention pooling."""

    def weights(kv: Tensor) -> Tensor:
        q = pool.q(pool.latent.expand(len(kv), -1, -1)).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        k = kv.unflatten(-1, (2, pool.num_heads, -1))[:, :, 0].transpose(1, 2)
        return _mean_over_heads(pool.q_norm(q), pool.k_norm(k))

    return weights


def _mean_over_heads(q: Tensor, k: Tensor) -> Tensor:
    """Attention (n, l) of q (n, heads, 1, head_dim) to k (n, heads, l, head_dim)."""
    scores = q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5
    return torch.softmax(scores, dim=-1)[:, :, 0].mean(dim=1)
