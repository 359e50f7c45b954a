"""The adapted convolution: an adapter updates its unfolded kernel, a matrix (out, in / groups * height * width).

A convolution is the product of that matrix with every patch of its input, so that the counts and orders of
`kravl.adapters.low_rank` hold with one token for each position of the output. Patches are never materialised.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kravl.adapters.base import Adapter, without_autocast
from kravl.adapters.injection.geometry import Geometry, correlate, mix
from kravl.adapters.injection.parameter import AdaptedRows, adapted_weight, adapters_of, reads_adapted
from kravl.adapters.low_rank import LowRankAdapter, ProductOrder, masks_entries
from kravl.adapters.workspace import cast, scratch

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Call(NamedTuple):
    """What one forward pass and its backward pass share; ``order`` is None for an update that is no product."""

    adapter: Adapter
    mask: Tensor | None
    geometry: Geometry
    order: ProductOrder | None

    def with_factors(self, factors: Sequence[Tensor], mask: Tensor | None) -> "Call":
        """With those that autograd has saved, which may differ from the current ones."""
        parameters: Mapping[str, Tensor] = dict(zip(self.adapter.trainable(), factors, strict=True))
        return self._replace(adapter=self.adapter.with_parameters(parameters), mask=mask)


def adapted_conv(conv: Conv, x: Tensor) -> Tensor:
    """``x`` (b, in, ...) or (in, ...) convolved with the adapted kernel of ``conv``, plus its bias.

    The kernel is built in the adapter's precision and cast to that of the product, autocast's if it is on.
    """
    weight, bias, blocks = conv._parameters["weight"], conv.bias, adapters_of(conv).of("weight")
    assert weight is not None
    if not blocks or x.dim() not in (weight.dim(), weight.dim() - 1):  # merged; or refused by torch
        return conv._conv_forward(x, weight, bias)
    if x.dim() == weight.dim() - 1:
        return adapted_conv(conv, x.unsqueeze(0)).squeeze(0)
    x, geometry = _padded(conv, x)
    dtype = weight.dtype
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    (block,) = blocks
    mask = block.adapter.draw_mask(x)
    call = Call(block.adapter, mask, geometry, _order(block.adapter, mask, geometry, x, weight))
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _forward(call, x, weight, bias, dtype)[0]
    return _Convolution.apply(call, dtype, x, weight, bias, mask, *block.adapter.trainable().values())


def _padded(conv: Conv, x: Tensor) -> tuple[Tensor, Geometry]:
    """``x`` with the padding that a convolution cannot do by itself, and the geometry with the rest of it, as torch."""
    stride, dilation = _each(conv, conv.stride), _each(conv, conv.dilation)
    padding = (0,) * len(stride)
    if conv.padding_mode != "zeros":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
    elif conv.padding == "same":
        both = [spread * (width - 1) for spread, width in zip(dilation, conv.kernel_size, strict=True)]
        padding = tuple(total // 2 for total in both)
        if any(total % 2 for total in both):  # one more behind than before
            x = F.pad(x, [side for total in reversed(both) for side in (0, total % 2)])
    elif conv.padding != "valid":
        padding = _each(conv, conv.padding)  # type: ignore[arg-type]
    return x, Geometry(stride, padding, dilation, conv.groups)


def _each(conv: Conv, value: int | tuple[int, ...]) -> tuple[int, ...]:
    """One number for each dimension, also where somebody has set a single one."""
    return (value,) * len(conv.kernel_size) if isinstance(value, int) else tuple(value)


def _order(adapter: Adapter, mask: Tensor | None, geometry: Geometry, x: Tensor, kernel: Tensor) -> ProductOrder | None:
    if not isinstance(adapter, LowRankAdapter):
        return None
    if geometry.groups > 1 and not masks_entries(mask):
        # ``down`` would be convolved with each group: more work than the dense gradient unless groups are wide
        return ProductOrder(apply_factors=False, apply_factors_backward=False, dense=True)
    return adapter.order(geometry.positions(x, kernel), x.dtype, mask)


def _forward(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """y, and the map between the factors where the backward pass reads it."""
    adapter, mask, geometry, order = call
    with without_autocast(x.device.type):
        if order is None or not order.apply_factors:
            if torch.compiler.is_compiling():  # the compiler differentiates, and recomputes what is cheap
                kernel = adapted_weight(weight, [AdaptedRows(adapter, slice(0, weight.shape[0]), mask)]).to(dtype)
            else:
                kernel = _merged(call, weight, dtype)
            return geometry.convolve(x, kernel, bias), None
        assert isinstance(adapter, LowRankAdapter)
        y = geometry.convolve(x, weight.to(dtype), bias)
        up, down = _factors(call, weight, dtype)
        hidden = geometry.thin(adapter.dropped(x, mask), down)
        y.add_(mix(up, hidden), alpha=adapter.scale)  # in y's own memory format
        return y, None if order.dense or not adapter.trained[0] else hidden


class _Convolution(torch.autograd.Function):
    """Saves x and references to W and the factors, the dropout mask, and the map between the factors."""

    @staticmethod
    def forward(ctx, call, dtype, x, weight, bias, *mask_and_factors):  # type: ignore[no-untyped-def]
        ctx.call = call._replace(mask=None)
        y, hidden = _forward(call, x, weight, bias, dtype)
        ctx.save_for_backward(x, weight, hidden, *mask_and_factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight, hidden, mask, *factors = ctx.saved_tensors  # read once: gradient checkpointing hands them out once
        call, needed = ctx.call.with_factors(factors, mask), (ctx.needs_input_grad[2], ctx.needs_input_grad[4])
        with without_autocast(weight.device.type):
            if call.order is None or call.order.dense:
                grad_x, grad_bias, grads = _dense_gradients(call, gradient, x, weight, needed)
            else:
                grad_x, grad_bias, grads = _thin_gradients(call, gradient, (x, weight, hidden), needed)
        return None, None, grad_x, None, grad_bias, None, *grads


def _dense_gradients(
    call: Call, gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None, Sequence[Tensor | None]]:
    """Gradients of x and bias, where ``needed``, and of the factors from that of the whole kernel."""
    (needs_x, needs_bias), adapter = needed, call.adapter
    out = _matrix(adapter, weight) if needs_x else None
    from_update = adapter.recompute_update(weight.flatten(1), call.mask, out)
    kernel = weight.to(x.dtype) if out is None else _as_kernel(out, weight, x.dtype)
    trains = bool(adapter.trainable())
    grad_x, grad_kernel, grad_bias = call.geometry.gradients(gradient, x, kernel, (needs_x, trains, needs_bias))
    return grad_x, grad_bias, () if grad_kernel is None else from_update(grad_kernel.flatten(1))


def _thin_gradients(
    call: Call, gradient: Tensor, saved: tuple[Tensor, Tensor, Tensor | None], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None, Sequence[Tensor | None]]:
    """As `_dense_gradients` for ΔW = up down, through the map between the two instead of the kernel's gradient.

    Where that is cheaper, x gets the update's share from the factors too, and else from the adapted kernel.
    """
    (x, weight, hidden), (needs_x, needs_bias), (adapter, mask, geometry, order) = saved, needed, call
    assert isinstance(adapter, LowRankAdapter) and order is not None
    shares = needs_x and order.apply_factors_backward
    grad_x = grad_bias = None
    if needs_x or needs_bias:
        kernel = _merged(call, weight, x.dtype) if needs_x and not shares else weight.to(x.dtype)
        grad_x, _, grad_bias = geometry.gradients(gradient, x, kernel, (needs_x, False, needs_bias))
    (up, down), (trains_up, trains_down) = _factors(call, weight, x.dtype), adapter.trained
    dropped, grad_up, grad_down = adapter.dropped(x, mask), None, None
    if trains_up:
        hidden = geometry.thin(dropped, down) if hidden is None else hidden
        grad_up = correlate(hidden, gradient, geometry.groups).transpose(0, 1).flatten(1)
    if shares or trains_down:
        grad_hidden = mix(up.mT, gradient)
        share, grad_down = geometry.thin_gradients(grad_hidden, dropped, down, (shares, trains_down))
        if grad_x is not None and share is not None:
            grad_x.add_(adapter.dropped(share, mask), alpha=adapter.scale)
        if grad_down is not None:
            grad_down = grad_down.unflatten(0, (geometry.groups, -1)).sum(0)
    return grad_x, grad_bias, adapter.gradients(grad_up, grad_down, mask)


def _factors(call: Call, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``up`` (groups, out / groups, k), and ``down`` as a kernel (groups * k, in / groups, ...), groups being alike."""
    assert isinstance(call.adapter, LowRankAdapter)
    up, down = call.adapter.masked_factors(call.mask)
    groups, kernel = call.geometry.groups, down.to(dtype).view(-1, *weight.shape[1:])
    kernel = kernel if groups == 1 else kernel.repeat(groups, *[1] * (weight.dim() - 1))
    return up.to(dtype).unflatten(0, (groups, -1)), kernel


def _merged(call: Call, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The adapted kernel, valid until the next call."""
    out = _matrix(call.adapter, weight)
    call.adapter.add_to(weight.flatten(1), call.mask, out)
    return _as_kernel(out, weight, dtype)


def _matrix(adapter: Adapter, weight: Tensor) -> Tensor:
    dtype = torch.promote_types(weight.dtype, adapter.dtype)
    return scratch("matrix", (weight.shape[0], weight[0].numel()), weight, dtype)


def _as_kernel(matrix: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` (out, in) in the shape of ``weight``, and in its memory format, by which torch chooses its kernels."""
    kernel = cast(matrix, dtype).view(weight.shape)
    return kernel if kernel.stride() == weight.stride() else torch.empty_like(weight, dtype=dtype).copy_(kernel)


class AdaptedConv1d(nn.Conv1d):
    """An nn.Conv1d with a child ``adapters``, created by `inject` by swapping the class; its weight is unchanged."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        return adapted_conv(self, input)


class AdaptedConv2d(nn.Conv2d):
    """As `AdaptedConv1d`, of maps (b, in, height, width)."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        return adapted_conv(self, input)


class AdaptedConv3d(nn.Conv3d):
    """As `AdaptedConv1d`, of maps (b, in, depth, height, width)."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        return adapted_conv(self, input)


# of exactly these types: a subclass may pad its input or change its weight
ADAPTED_CONVS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: AdaptedConv1d,
    nn.Conv2d: AdaptedConv2d,
    nn.Conv3d: AdaptedConv3d,
}
