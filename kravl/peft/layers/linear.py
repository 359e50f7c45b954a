"""Adapted linear layers: nn.Linear, transformers' Conv1D, quantised ones, and the one that attention never calls."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kravl.adapters.base import Adapter, without_autocast
from kravl.adapters.injection.linear import adapted_linear, product
from kravl.adapters.injection.parameter import AdaptedRows
from kravl.peft.layers.layer import AdapterLayer, Sizes

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class AdaptedLinear(AdapterLayer):
    """y = x (W + ΔW)ᵀ + b in one product that keeps x and the factors alone, or base layer plus x ΔWᵀ.

    The one product bypasses the base layer's forward. It is taken for one adapter on a plain float32 or float64 layer;
    never in half precision, where W + ΔW rounds to W for the small updates of early training.
    """

    def sizes(self) -> Sizes:
        return {"weight": (self.out_features, self.in_features)}

    def stored(self, delta: Tensor, name: str) -> Tensor:
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def adapted(self, x: Tensor, active: Sequence[Any], *args: Any, **kwargs: Any) -> Tensor:
        if len(active) > 1 or args or kwargs or not can_fuse(self.base_layer, x):
            return super().adapted(x, active, *args, **kwargs)
        weight = self.base_layer.weight.T if type(self.base_layer) is Conv1D else self.base_layer.weight
        return adapted_linear(x, weight, self.base_layer.bias, [_rows(active[0])])

    def added(self, adapter: Any, x: Tensor, y: Tensor) -> Tensor:
        return update_of(adapter, x).to(y.dtype)


class OutProjectionLinear(AdaptedLinear):
    """The output projection of an nn.MultiheadAttention, which reads its ``weight`` and never calls it."""

    @property
    def weight(self) -> Tensor:
        weight = self.get_base_layer().weight
        for adapter in self.active():
            weight = weight + update_matrix(adapter)
        return weight.to(self.get_base_layer().weight.dtype)


def can_fuse(base: nn.Module, x: Tensor, kinds: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)) -> bool:
    """Whether ``base``, of one of the ``kinds``, does nothing but apply a frozen weight, in single or double precision.

    False where something of it would be left out: hooks (offloading, DeepSpeed), a forward that was replaced, a weight
    that is sharded, quantised, parametrised or trains.
    """
    if type(base) not in kinds or "forward" in base.__dict__ or hasattr(base, "_hf_hook"):
        return False
    weight = base.weight
    plain = type(weight) is nn.Parameter and weight.dtype in (torch.float32, torch.float64) and not weight.requires_grad
    if not plain or any(getattr(base, hooks) for hooks in HOOKS):
        return False
    return x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type)


def update_of(adapter: Adapter, x: Tensor) -> Tensor:
    """x (..., in) times the update (out, in): the same product on a weight of zeros, which take no memory.

    ΔW is built in the precision of its factors and cast to that of ``x``, or to autocast's.
    """
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    zeros = torch.zeros((), dtype=adapter.dtype, device=x.device).expand(adapter.out_features, adapter.in_features)
    return product(x.to(dtype), zeros, None, [_rows(adapter).draw(x)], dtype)


def update_matrix(adapter: Adapter) -> Tensor:
    """The scaled update (out, in), differentiable, with a newly drawn dropout mask."""
    device = next(adapter.parameters()).device
    zeros = torch.zeros((), dtype=adapter.dtype, device=device).expand(adapter.out_features, adapter.in_features)
    with without_autocast(device.type):
        return adapter(zeros, adapter.draw_mask())


def _rows(adapter: Adapter) -> AdaptedRows:
    return AdaptedRows(adapter, slice(0, adapter.out_features))
