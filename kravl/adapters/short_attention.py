"""Attention over few tokens in bfloat16 on a CPU: PyTorch's fused forward pass, and a faster backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# The backward pass of PyTorch's fused kernel is slow there: a step of kravl-tiny, 65 tokens, took 0.41 s with it and
# 0.24 s without. Of many tokens the scores, which are made here, would need too much memory.
SHORT = 128


def is_short(q: Tensor) -> bool:
    """Whether `short_attention` is for q (n, heads, l, head_dim): in training under mixed precision on a CPU."""
    trains = q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"
    return trains and torch.is_autocast_enabled("cpu") and q.shape[-2] <= SHORT and not torch.compiler.is_compiling()


def short_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """As F.scaled_dot_product_attention, bit for bit; gradients up to the rounding of bfloat16. Saves q, k and v."""
    return _ShortAttention.apply(q, k, v, mask)


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        return F.scaled_dot_product_attention(q, k, v, mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        scores = (q * scale) @ k.transpose(-2, -1)
        p = (scores if mask is None else scores + mask).softmax(-1)  # (n, heads, l, l)
        towards_p = gradient @ v.transpose(-2, -1)
        towards_scores = p * (towards_p - (gradient * (p @ v)).sum(-1, keepdim=True))
        towards_q = towards_scores @ k * scale
        return towards_q, towards_scores.transpose(-2, -1) @ q * scale, p.transpose(-2, -1) @ gradient, None
