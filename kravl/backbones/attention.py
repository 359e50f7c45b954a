"""Self-attention in two steps, between which tokens can be gathered: q, k and v of tokens, then attention."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F


@runtime_checkable
class StepwiseAttention(Protocol):
    """What a self-attention offers whose weights are not plain parameters, such as adapted ones."""

    num_heads: int
    out_proj: nn.Module

    def project(self, x: Tensor) -> Tensor:
        """q, k and v side by side (..., 3 * d) of tokens (..., d)."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
        """Outputs (n, heads, l, d / heads) for q of the same shape; k and v may have other lengths."""
        ...


def is_stepwise(attention: nn.Module) -> bool:
    """Whether `project` and `attend` together compute the self-attention of ``attention``."""
    if not isinstance(attention, nn.MultiheadAttention):
        return False
    same_width = attention.embed_dim == attention.kdim == attention.vdim
    plain = type(attention) is nn.MultiheadAttention or isinstance(attention, StepwiseAttention)
    drops = attention.dropout > 0 and attention.training
    return same_width and plain and attention.bias_k is None and not attention.add_zero_attn and not drops


def project(attention: nn.Module, x: Tensor) -> Tensor:
    """q, k and v side by side (..., 3 * d) of tokens (..., d)."""
    if isinstance(attention, StepwiseAttention):
        return attention.project(x)
    assert isinstance(attention, nn.MultiheadAttention)
    return F.linear(x, attention.in_proj_weight, attention.in_proj_bias)


def attend(attention: nn.Module, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Output (n, l, d) before its projection, for q (n, l, d) and k, v (n, m, d); ``is_causal`` needs l = m."""
    assert isinstance(attention, nn.MultiheadAttention)
    q, k, v = (rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for rows in (q, k, v))
    if isinstance(attention, StepwiseAttention):
        heads = attention.attend(q, k, v, is_causal=is_causal)
    else:
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    return heads.transpose(1, 2).flatten(2)
