"""Image features pooled at the first token: the last block computes the state of that token alone, the only one read.

A tower is inspected first: one that pools differently, or has blocks of an unknown type, runs unchanged.
"""

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, Transformer
from open_clip.transformer import VisionTransformer as ClipVision
from timm.layers import Attention
from timm.models.vision_transformer import Block
from timm.models.vision_transformer import VisionTransformer as TimmVision
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.backbones.attention import attend, is_stepwise, project


def clip_pools_first_token(tower: nn.Module) -> bool:
    """Whether `clip_first_token` applies to this image tower of an open_clip model."""
    if not isinstance(tower, ClipVision) or type(tower).forward is not ClipVision.forward:
        return False
    pools = tower.pool_type == "tok" and tower.attn_pool is None and not tower.output_tokens
    return (
        pools
        and type(tower.transformer) is Transformer
        and _ends_in(ResidualAttentionBlock, tower.transformer.resblocks)
    )


def clip_first_token(tower: Any, images: Tensor) -> Tensor:
    """Features (n, d) that ``tower`` computes for images (n, 3, h, w)."""
    last = tower.transformer.resblocks[-1]
    if not is_stepwise(last.attn):
        return tower(images)
    settings = {"stop_early": True, "intermediates_only": True, "output_fmt": "NLC", "output_extra_tokens": True}
    before = tower.forward_intermediates(images, indices=[len(tower.transformer.resblocks) - 2], **settings)
    x = torch.cat([before["image_intermediates_prefix"][0], before["image_intermediates"][0]], dim=1)
    q, k, v = project(last.attn, last.ln_1(x)).chunk(3, dim=-1)
    x = x[:, :1] + last.ls_1(last.attn.out_proj(attend(last.attn, q[:, :1], k, v)))
    x = tower.ln_post(x + last.ls_2(last.mlp(last.ln_2(x))))[:, 0]
    return x if tower.proj is None else x @ tower.proj


def timm_pools_first_token(model: nn.Module) -> bool:
    """Whether `timm_first_token` applies to this timm model."""
    if type(model) is not TimmVision or model.global_pool != "token" or model.attn_pool is not None:
        return False
    attention: Any = model.blocks[-1].attn if _ends_in(Block, model.blocks) else None
    return type(attention) is Attention and attention.gate is None


def timm_first_token(model: Any, images: Tensor) -> Tensor:
    """Features (n, d), the input of the head of ``model``, for images (n, 3, h, w)."""
    last = model.blocks[-1]
    settings = {"stop_early": True, "intermediates_only": True, "output_fmt": "NLC", "return_prefix_tokens": True}
    ((patches, prefix),) = model.forward_intermediates(images, indices=[len(model.blocks) - 2], **settings)
    x = torch.cat([prefix, patches], dim=1)
    x = x[:, :1] + last.drop_path1(last.ls1(_first_token(last.attn, last.norm1(x))))
    x = x + last.drop_path2(last.ls2(last.mlp(last.norm2(x))))
    return model.forward_head(model.norm(x), pre_logits=True)


def _ends_in(kind: type[nn.Module], blocks: nn.Module) -> bool:
    """Whether there are at least two blocks and the last is a ``kind``."""
    *before, last = blocks.children()
    return bool(before) and type(last) is kind


def _first_token(attention: Attention, x: Tensor) -> Tensor:
    """timm's attention of the first token (n, 1, d) to all tokens (n, l, d)."""
    heads = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attention.q_norm(q[:, :, :1]), attention.k_norm(k)
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=attention.attn_drop.p if attention.training else 0.0)
    return attention.proj_drop(attention.proj(attention.norm(y.transpose(1, 2).flatten(2))))
