"""The product with an adapted weight, y = x @ (W + ΔW)^T + b, that keeps no dense ΔW for the backward pass."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional as F

from kravl.adapters.base import Adapter
from kravl.adapters.parameter import Block, adapted_weight, add_updates, blocks_of, reads_adapted


def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[Block]) -> Tensor:
    """``x`` (..., in) times the adapted ``weight`` (out, in), plus ``bias`` (out,): shape (..., out).

    One product for all blocks, plus one thin product for those with low-rank factors of their own (`Adapter.branch`).
    The adapted weight is built in the adapters' precision and cast to that of the product, autocast's if it is on.
    """
    dtype = weight.dtype
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    dense, thin = [], []
    for block in blocks:
        branch = block.adapter.branch(x)
        if branch is None:
            dense.append(block.draw())
        else:
            thin.append((block.rows, *branch))
    y = _product(dense, dtype, x, weight, bias)
    if thin:
        y += _thin_product(thin, weight.shape[0])
    return y


def _thin_product(thin: Sequence[tuple[slice, Tensor, Tensor]], out_features: int) -> Tensor:
    """All branches (rows, hidden (..., r), up (rows, r)) as one product (..., out): one copy of y fewer for each."""
    if len(thin) == 1 and thin[0][2].shape[0] == out_features:
        return F.linear(*thin[0][1:])
    hidden = torch.cat([hidden for _, hidden, _ in thin], dim=-1)
    ups = [F.pad(up, (0, 0, rows.start, out_features - rows.stop)) for rows, _, up in thin]
    return F.linear(hidden, torch.cat(ups, dim=1))


def _product(blocks: Sequence[Block], dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not blocks:
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # the compiler rebuilds what is cheap by itself
        return F.linear(x, adapted_weight(weight, blocks).to(dtype), bias)
    factors = [factor for block in blocks for _, factor in _trainable(block.adapter)]
    return _Product.apply(blocks, dtype, x, weight, bias, *factors)


def _trainable(adapter: Adapter) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in adapter.named_parameters() if p.requires_grad]


class _Product(torch.autograd.Function):
    """Saves x and references to W and the factors; the backward pass rebuilds the adapted weight from them."""

    @staticmethod
    def forward(ctx, blocks, dtype, x, weight, bias, *factors):  # type: ignore[no-untyped-def]
        ctx.blocks = blocks
        ctx.save_for_backward(x, weight, *factors)
        return F.linear(x, adapted_weight(weight, blocks).to(dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, *factors = ctx.saved_tensors
        grad_x = grad_bias = None
        leaves = [factor.detach().requires_grad_() for factor in factors]
        with torch.autocast(weight.device.type, enabled=False):
            with torch.enable_grad():
                updates = list(_updates(ctx.blocks, weight, iter(leaves)))
            if ctx.needs_input_grad[2]:
                adapted = add_updates(weight, ctx.blocks, [update.detach() for update in updates])
                grad_x = grad @ adapted.to(grad.dtype)
            grad, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
            if ctx.needs_input_grad[4]:
                grad_bias = grad.sum(0)
            grads = [(grad[:, b.rows].T @ x).to(u.dtype) for b, u in zip(ctx.blocks, updates, strict=True)]
            grad_factors = torch.autograd.grad(updates, leaves, grads, allow_unused=True) if leaves else ()
        return None, None, grad_x, None, grad_bias, *grad_factors


def _updates(blocks: Sequence[Block], weight: Tensor, factors: Iterator[Tensor]) -> Iterator[Tensor]:
    """Each block's update as a function of ``factors``, its trainable parameters in order."""
    for adapter, rows, mask in blocks:
        state = {name: next(factors) for name, _ in _trainable(adapter)}
        yield functional_call(adapter, state, (weight[rows], mask))


class AdaptedLinear(nn.Linear):
    """An nn.Linear with a child ``adapters``, made by `inject` by a change of class; its weight stays as it was."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        return adapted_linear(input, weight, self.bias, blocks_of(self).of("weight"))
