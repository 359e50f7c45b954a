"""Multi-head attention with adapted q, k, v rows of the packed weight, and ``out_proj`` called as a module."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters.injection.linear import adapted_linear
from kravl.adapters.injection.parameter import adapters_of, reads_adapted

# The backward pass of PyTorch's fused kernel is slow on a CPU: a step of kravl-tiny, 65 tokens, took 0.41 s with it and
# 0.24 s without. For more tokens, the scores that are materialised here would need too much memory.
SHORT = 128


def is_short(q: Tensor) -> bool:
    """Whether to use `short_attention` for q (n, heads, l, head_dim): in mixed-precision training on a CPU."""
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
        grad_p = gradient @ v.transpose(-2, -1)
        grad_scores = p * (grad_p - (gradient * (p @ v)).sum(-1, keepdim=True))
        grad_q = grad_scores @ k * scale
        return grad_q, grad_scores.transpose(-2, -1) @ q * scale, p.transpose(-2, -1) @ gradient, None


class AdaptedAttention(nn.MultiheadAttention):
    """An nn.MultiheadAttention with a child ``adapters``, created by `inject` by swapping the class.

    Batched self-attention without returned weights (what vision and text towers do) is one packed product, scaled dot
    product attention and a call of ``out_proj``. Everything else is left to nn.MultiheadAttention, which reads the
    adapted weights as attributes: the same result at the cost of more memory.
    """

    in_proj_weight = reads_adapted("in_proj_weight")

    def forward(  # noqa: PLR0913 (the signature of nn.MultiheadAttention)
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        rare = key_padding_mask is not None or need_weights or (is_causal and attn_mask is None)
        if rare or query is not key or key is not value or not self._is_plain(query):
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        return self._attend(query, None if is_causal else attn_mask, is_causal), None

    def _is_plain(self, query: Tensor) -> bool:
        return query.dim() == 3 and not query.is_nested and self.bias_k is None and not self.add_zero_attn

    def _attend(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Attention of ``x``, (n, l, d) or (l, n, d), to itself; ``attn_mask`` is (l, l) or (n * heads, l, l)."""
        heads = self._project(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim)
        q, k, v = heads.permute((2, 0, 3, 1, 4) if self.batch_first else (2, 1, 3, 0, 4))  # (n, heads, l, head_dim)
        if attn_mask is not None:
            attn_mask = _additive(attn_mask, q.dtype)
            attn_mask = attn_mask if attn_mask.dim() == 2 else attn_mask.view(*q.shape[:3], -1)
        dropout = self.dropout if self.training else 0.0
        if is_short(q) and not (dropout or is_causal):
            y = short_attention(q, k, v, attn_mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout, is_causal)
        return self.out_proj(y.permute((0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)).reshape(x.shape))

    def project(self, x: Tensor) -> Tensor:
        """q, k and v side by side (..., 3 * d) of tokens (..., d)."""
        weight = self._parameters["in_proj_weight"]
        assert weight is not None
        adapters = adapters_of(self)
        blocks = adapters.of("in_proj_weight")
        return adapted_linear(x, weight, self.in_proj_bias, blocks, adapters.read_type(weight))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
        """Attention of q (n, heads, l, head_dim) to k and v (n, heads, m, head_dim), without dropout."""
        if not is_short(q):
            return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        mask = torch.full((q.shape[-2], k.shape[-2]), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        return short_attention(q, k, v, mask if is_causal else None)

    def _project(self, x: Tensor) -> Tensor:
        """q, k and v of each token side by side, (..., 3 * d), by the operations of nn.MultiheadAttention.

        That moves the batch to the second dimension first and, if ``x`` is not contiguous then, adds the bias
        separately. Rows are not moved here: bit for bit torch's result where a product's row ignores its position.
        """
        weight, adapters = self._parameters["in_proj_weight"], adapters_of(self)
        assert weight is not None
        blocks, dtype = adapters.of("in_proj_weight"), adapters.read_type(weight)
        if self.in_proj_bias is None or (x.transpose(0, 1) if self.batch_first else x).is_contiguous():
            return adapted_linear(x, weight, self.in_proj_bias, blocks, dtype)
        packed = adapted_linear(x, weight, None, blocks, dtype)
        return packed + self.in_proj_bias.to(packed.dtype)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as added scores: True, which in nn.MultiheadAttention hides a position, becomes -inf."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
    return mask.to(dtype)
