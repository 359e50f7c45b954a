"""The adapted nn.Linear, and the product with a weight whose row blocks are adapted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kravl.adapters.base import without_autocast
from kravl.adapters.injection.parameter import AdaptedRows, adapted_weight, blocks_of, reads_adapted
from kravl.adapters.workspace import cast, scratch


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[AdaptedRows], dtype: torch.dtype
) -> Tensor:
    """y (..., out) for ``x`` (..., in), ``weight`` (out, in) and ``bias`` (out,), multiplied in ``dtype``."""
    if not blocks:
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _multiply(x, weight, bias, blocks, dtype)[0]
    factors = [parameter for block in blocks for parameter in block.adapter.trainable().values()]
    return _Product.apply(blocks, dtype, x, weight, bias, *[block.mask for block in blocks], *factors)


def _multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[AdaptedRows], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor | None]]:
    """y, and what the backward pass needs of each block's own product."""
    tokens = x.reshape(-1, x.shape[-1])
    chains = [block.adapter.chains(tokens, block.mask) for block in blocks]
    merged = [block for block, chained in zip(blocks, chains, strict=True) if not chained]
    with without_autocast(x.device.type):
        if torch.compiler.is_compiling():  # it differentiates by itself, and rebuilds what is cheap
            adapted = adapted_weight(weight, merged).to(dtype)
        else:
            out = _room(weight, merged)
            for block in merged:
                block.adapter.add_to(weight[block.rows], block.mask, out[block.rows])
            adapted = cast(out, dtype)
        y = F.linear(x, adapted, bias)
        if len(merged) == len(blocks):
            return y, [None] * len(blocks)
        y = y.contiguous()
        flat = y.view(-1, y.shape[-1])
        kept = [
            block.adapter.apply_factors(tokens, flat[:, block.rows], block.mask) if chained else None
            for block, chained in zip(blocks, chains, strict=True)
        ]
    return y, kept


class _Product(torch.autograd.Function):
    """Saves x and references to W and the factors, dropout masks, and what lies between the factors of a chain."""

    @staticmethod
    def forward(ctx, blocks, dtype, x, weight, bias, *rest):  # type: ignore[no-untyped-def]
        ctx.blocks = blocks
        y, kept = _multiply(x, weight, bias, blocks, dtype)
        ctx.save_for_backward(x, weight, *kept, *rest)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight, *rest = ctx.saved_tensors  # once: gradient checkpointing gives them a single time
        kept, rest = rest[: len(ctx.blocks)], rest[len(ctx.blocks) :]
        blocks = _with_saved(ctx.blocks, rest)
        tokens, flat = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        grad_bias = flat.sum(0) if ctx.needs_input_grad[4] else None
        with without_autocast(weight.device.type):
            grad_x, grads = _gradients((tokens, flat), weight, blocks, kept, ctx.needs_input_grad[2])
        grad_x = None if grad_x is None else grad_x.view(x.shape)
        return None, None, grad_x, None, grad_bias, *[None] * len(blocks), *grads


def _with_saved(blocks: Sequence[AdaptedRows], saved: Sequence[Tensor]) -> list[AdaptedRows]:
    """The blocks with the masks, then the factors, that were saved, which may not be those of now."""
    masks, factors = saved[: len(blocks)], iter(saved[len(blocks) :])
    bound = [
        block.adapter.with_parameters({name: next(factors) for name in block.adapter.trainable()}) for block in blocks
    ]
    return [AdaptedRows(a, block.rows, mask) for a, block, mask in zip(bound, blocks, masks, strict=True)]


def _gradients(
    ends: tuple[Tensor, Tensor],
    weight: Tensor,
    blocks: Sequence[AdaptedRows],
    kept: Sequence[Tensor | None],
    wants_x: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """dL/dx = dL/dy W' (tokens, in), where it is wanted, and the gradients of all factors; ``ends`` are x and dL/dy.

    W' is the adapted weight, built again here; a block whose factors are cheaper one after the other is left out of it
    and adds its own share to dL/dx.
    """
    x, gradient = ends
    chained = [wants_x and block.adapter.applies_factors_backward(x, block.mask) for block in blocks]
    merged = [block for block, chains in zip(blocks, chained, strict=True) if wants_x and not chains]
    out = _room(weight, merged) if wants_x else weight
    products = [
        adapter.recompute(weight[rows], mask, out[rows] if wants_x and not chains else None, hidden)
        for (adapter, rows, mask), chains, hidden in zip(blocks, chained, kept, strict=True)
    ]
    grad_x = gradient @ cast(out, gradient.dtype) if wants_x else None
    grads: list[Tensor | None] = []
    for block, vjp, chains in zip(blocks, products, chained, strict=True):
        grads += vjp(gradient[:, block.rows], x, grad_x if chains else None)
    return grad_x, grads


def _room(weight: Tensor, merged: Sequence[AdaptedRows]) -> Tensor:
    """A matrix for the adapted weight: the rows that no block adapts are there; ``weight`` itself if all are."""
    if not merged:
        return weight
    dtype = torch.promote_types(weight.dtype, merged[0].adapter.dtype)
    out = scratch("matrix", (weight.shape[0], weight.shape[1]), weight, dtype)
    if merged[0].rows == slice(0, weight.shape[0]):
        return out
    rows = sorted((block.rows.start, block.rows.stop) for block in merged)
    starts, stops = zip(*rows, strict=True)
    for start, stop in zip((0, *stops), (*starts, len(weight)), strict=True):
        if start < stop:
            out[start:stop] = weight[start:stop]
    return out


def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[AdaptedRows]) -> Tensor:
    """``x`` (..., in) times the adapted ``weight`` (out, in), plus ``bias`` (out,): shape (..., out).

    One product for all blocks. The adapted weight is built in the adapters' precision and cast to that of the product,
    autocast's if it is on.
    """
    dtype = weight.dtype
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    return product(x, weight, bias, [block.draw(x) for block in blocks], dtype)


class AdaptedLinear(nn.Linear):
    """An nn.Linear with a child ``adapters``, made by `inject` by a change of class; its weight stays as it was."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        return adapted_linear(input, weight, self.bias, blocks_of(self).of("weight"))
