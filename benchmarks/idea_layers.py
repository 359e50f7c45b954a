"""Layers that compute what kravl's adapted layers do in another way, for ideas.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters import workspace
from kravl.adapters.base import Adapter
from kravl.adapters.injection.parameter import adapters_of
from kravl.adapters.kra import KRAdapter

HALF = torch.bfloat16


class Kept(torch.autograd.Function):
    """The product with an adapted weight that stays from the forward to the backward pass: in ``memory``, else new."""

    @staticmethod
    def forward(ctx, adapter, memory, x, weight, bias, *factors):  # type: ignore[no-untyped-def]
        ctx.adapter, ctx.factored = adapter, adapter.applies_factors(x, None)
        adapted = weight
        if not ctx.factored:
            adapted = torch.empty_like(weight) if memory is None else memory
            adapter.add_to(weight, None, adapted)
        adapted = adapted.to(x.dtype)
        y = F.linear(x, adapted, bias)
        ctx.hidden = adapter.apply_factors(x, y, None) if ctx.factored else None
        ctx.save_for_backward(x, adapted, weight)
        return y

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, adapted, weight = ctx.saved_tensors
        vjp = ctx.adapter.recompute(weight, None, None, ctx.hidden)
        grad_x = gradient @ adapted
        return None, None, grad_x, None, None, *vjp(gradient, x, grad_x if ctx.factored else None)


class KeptLinear(nn.Module):
    """kravl's ``layer`` by `Kept`."""

    def __init__(self, layer: nn.Module, memory: Tensor | None = None) -> None:
        super().__init__()
        self.layer, self.memory = layer, memory

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = parts(self.layer)
        if torch.is_autocast_enabled("cpu"):
            x, bias = x.to(HALF), bias.to(HALF)
        adapter = adapter_of(self.layer)
        with torch.autocast("cpu", enabled=False):
            return Kept.apply(adapter, self.memory, x, weight, bias, *adapter.trainable().values())


class WrittenInHalf(torch.autograd.Function):
    """The product with KRAdapter's adapted weight, written twice as kravl does, but in bfloat16 from factors in it."""

    @staticmethod
    def forward(ctx, adapter, x, weight, bias, *factors):  # type: ignore[no-untyped-def]
        ctx.adapter = adapter
        ctx.save_for_backward(x, weight)
        return F.linear(x, WrittenInHalf.adapted(adapter, weight), bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        grad_x = gradient @ WrittenInHalf.adapted(ctx.adapter, weight)
        return None, grad_x, None, None, *ctx.adapter.recompute(weight, None, None, None)(gradient, x, None)

    @staticmethod
    def adapted(adapter: KRAdapter, weight: Tensor) -> Tensor:
        out = workspace.scratch("matrix", (len(weight), weight.shape[1]), weight, HALF)
        factors = {name: factor.to(HALF) for name, factor in adapter.trainable().items()}
        adapter.with_parameters(factors).add_to(weight, None, out)
        return out


class WrittenLinear(nn.Module):
    """kravl's ``layer``, whose frozen weight is held in bfloat16, by `WrittenInHalf`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        adapter, (weight, bias) = adapter_of(self.layer), parts(self.layer)
        x, bias = x.to(HALF), bias.to(HALF)
        with torch.autocast("cpu", enabled=False):
            return WrittenInHalf.apply(adapter, x, weight, bias, *adapter.trainable().values())


class Prepacked(torch.autograd.Function):
    """The product with a frozen weight and, forward, with that in the order in which oneDNN reads it."""

    @staticmethod
    def forward(ctx, x, packed, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight)
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient @ ctx.saved_tensors[0], None, None, None


class PrepackedLinear(nn.Module):
    """The frozen ``layer`` by `Prepacked`, for ``tokens`` rows of input."""

    def __init__(self, layer: nn.Module, tokens: int) -> None:
        super().__init__()
        self.layer = layer
        self.packed = torch.ops.mkldnn._reorder_linear_weight(parts(layer)[0].detach(), tokens)

    def forward(self, x: Tensor) -> Tensor:
        return Prepacked.apply(x, self.packed, *parts(self.layer))


def parts(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The frozen weight and the bias of a ``layer``."""
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None and bias is not None
    return weight, bias


def adapter_of(layer: nn.Module) -> Adapter:
    """The one adapter of an adapted ``layer``."""
    (block,) = adapters_of(layer).of("weight")
    return block.adapter


def held_in_half(layer: nn.Module) -> nn.Module:
    """``layer``, changed: its frozen weight is in bfloat16."""
    layer._parameters["weight"] = nn.Parameter(parts(layer)[0].detach().to(HALF), requires_grad=False)
    return layer


def contract_by_columns(grad_update: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """As kravl.adapters.kra._contract, the gradient of v as matrices times a column each."""
    r, long = u.shape[1], grad_update.shape[1]
    count, left = divmod(long, r)
    groups = grad_update[:, : long - left].view(-1, count, r)
    grad_u = (v[:, :count].unsqueeze(1) @ groups).squeeze(1)
    grad_v = (groups @ u.unsqueeze(2)).squeeze(2)
    if left:
        tail = grad_update[:, -left:]
        grad_u[:, :left].addcmul_(tail, v[:, count:])
        grad_v = torch.cat([grad_v, (tail * u[:, :left]).sum(1, keepdim=True)], dim=1)
    return grad_u, grad_v
