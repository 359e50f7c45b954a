"""The adapted nn.Linear, and the product with a weight whose row blocks are adapted."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kravl.adapters.base import without_autocast
from kravl.adapters.injection.parameter import AdaptedRows, adapted_weight, adapters_of, reads_adapted
from kravl.adapters.injection.storage import stored_linear
from kravl.adapters.workspace import cast, scratch


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[AdaptedRows], dtype: torch.dtype
) -> Tensor:
    """y (..., out) for ``x`` (..., in), ``weight`` (out, in) and ``bias`` (out,), multiplied in ``dtype``."""
    if not blocks:
        is_stored = torch.promote_types(weight.dtype, dtype) != weight.dtype  # in less than what is multiplied
        return stored_linear(x, weight, bias) if is_stored else F.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _multiply(x, weight, bias, blocks, dtype)[0]
    factors = [parameter for block in blocks for parameter in block.adapter.trainable().values()]
    return _Product.apply(blocks, dtype, x, weight, bias, *[block.mask for block in blocks], *factors)


def _multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[AdaptedRows], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor | None]]:
    """y, and for each block ``hidden`` of `Adapter.recompute`."""
    tokens = x.reshape(-1, x.shape[-1])
    factored = [block.adapter.applies_factors(tokens, block.mask) for block in blocks]
    merged = [block for block, is_factored in zip(blocks, factored, strict=True) if not is_factored]
    with without_autocast(x.device.type):
        if torch.compiler.is_compiling():  # the compiler differentiates, and recomputes what is cheap
            adapted = adapted_weight(weight, merged).to(dtype)
        else:
            out = _buffer(weight, merged)
            for block in merged:
                block.adapter.add_to(weight[block.rows], block.mask, out[block.rows])
            adapted = cast(out, dtype)
        y = F.linear(x, adapted, bias)
        if len(merged) == len(blocks):
            return y, [None] * len(blocks)
        y = y.contiguous()
        flat = y.view(-1, y.shape[-1])
        hidden = [
            block.adapter.apply_factors(tokens, flat[:, block.rows], block.mask) if is_factored else None
            for block, is_factored in zip(blocks, factored, strict=True)
        ]
    return y, hidden


class _Product(torch.autograd.Function):
    """Saves x and references to W and the factors, dropout masks, and ``hidden`` of each block.

    An x that is an elementwise product, as behind a gate or QuickGELU, is not saved: see `_multiplicands`.
    """

    @staticmethod
    def forward(ctx, blocks, dtype, x, weight, bias, *masks_and_factors):  # type: ignore[no-untyped-def]
        ctx.blocks = blocks
        y, hidden = _multiply(x, weight, bias, blocks, dtype)
        ctx.save_for_backward(*(_multiplicands(x) or (x, None)), weight, *hidden, *masks_and_factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, other, weight, *saved = ctx.saved_tensors  # read once: gradient checkpointing hands them out a single time
        x = x if other is None else x * other
        hidden, masks_and_factors = saved[: len(ctx.blocks)], saved[len(ctx.blocks) :]
        blocks = _with_saved(ctx.blocks, masks_and_factors)
        tokens, flat = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        grad_bias = flat.sum(0) if ctx.needs_input_grad[4] else None
        with without_autocast(weight.device.type):
            grad_x, grads = _gradients((tokens, flat), weight, blocks, hidden, ctx.needs_input_grad[2])
        grad_x = None if grad_x is None else grad_x.view(x.shape)
        return None, None, grad_x, None, grad_bias, *[None] * len(blocks), *grads


def _multiplicands(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The two tensors whose elementwise product ``x`` is, where autograd keeps both for the gradients of that product.

    Multiplying them once more gives the bits of ``x`` and spares keeping it. None where a hook has packed them, as
    gradient checkpointing does, where ``x`` has been written to since (through ``.data`` it cannot be seen), and where
    autograd no longer has them as they were: its graph is freed, or one of them has changed.
    """
    node: Any = x.grad_fn
    if node is None or node.name() != "MulBackward0" or x._version:
        return None
    try:
        if any(saved.unpack_hook is not None for saved in (node._raw_saved_self, node._raw_saved_other)):
            return None
        a, b = node._saved_self, node._saved_other
    except RuntimeError:
        return None
    return (a.detach(), b.detach()) if a is not None and b is not None else None


def _with_saved(blocks: Sequence[AdaptedRows], saved: Sequence[Tensor]) -> list[AdaptedRows]:
    """The blocks with the ``saved`` masks, then factors, which may differ from the current ones."""
    masks, factors = saved[: len(blocks)], iter(saved[len(blocks) :])
    adapters = [
        block.adapter.with_parameters({name: next(factors) for name in block.adapter.trainable()}) for block in blocks
    ]
    return [AdaptedRows(a, block.rows, mask) for a, block, mask in zip(adapters, blocks, masks, strict=True)]


def _gradients(
    x_and_gradient: tuple[Tensor, Tensor],
    weight: Tensor,
    blocks: Sequence[AdaptedRows],
    hidden: Sequence[Tensor | None],
    needs_grad_x: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """dL/dx = dL/dy W' (tokens, in), where needed, and the gradients of all factors, from x and dL/dy.

    W' is the adapted weight, recomputed here; a block whose factors are cheaper to apply one after the other is left
    out of it and adds its share to dL/dx itself.
    """
    x, gradient = x_and_gradient
    factored = [needs_grad_x and block.adapter.applies_factors_backward(x, block.mask) for block in blocks]
    merged = [block for block, is_factored in zip(blocks, factored, strict=True) if needs_grad_x and not is_factored]
    out = _buffer(weight, merged) if needs_grad_x else weight
    products = [
        adapter.recompute(weight[rows], mask, out[rows] if needs_grad_x and not is_factored else None, saved)
        for (adapter, rows, mask), is_factored, saved in zip(blocks, factored, hidden, strict=True)
    ]
    grad_x = gradient @ cast(out, gradient.dtype) if needs_grad_x else None
    grads: list[Tensor | None] = []
    for block, vjp, is_factored in zip(blocks, products, factored, strict=True):
        grads += vjp(gradient[:, block.rows], x, grad_x if is_factored else None)
    return grad_x, grads


def _buffer(weight: Tensor, merged: Sequence[AdaptedRows]) -> Tensor:
    """A matrix for the adapted weight, with the rows that no block adapts filled in; ``weight`` if none is merged."""
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


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    blocks: Sequence[AdaptedRows],
    read_as: torch.dtype | None = None,
) -> Tensor:
    """``x`` (..., in) times the adapted ``weight`` (out, in), plus ``bias`` (out,): shape (..., out).

    One product for all blocks. The adapted weight is built in the adapters' precision and cast to that of the product:
    autocast's if it is on, else ``read_as`` of a weight that is stored in less precision, else the weight's own.
    """
    dtype = read_as or weight.dtype
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    return product(x, weight, bias, [block.draw(x) for block in blocks], dtype)


class AdaptedLinear(nn.Linear):
    """An nn.Linear with a child ``adapters``, created by `inject` by swapping the class; its weight is unchanged."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        adapters = adapters_of(self)
        return adapted_linear(input, weight, self.bias, adapters.of("weight"), adapters.read_type(weight))
