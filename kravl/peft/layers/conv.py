"""Adapted convolutions: the weight (out, in / groups, *kernel) as a matrix (out, in / groups * kernel)."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kravl.peft.layers.layer import AdapterLayer, Sizes
from kravl.peft.layers.linear import can_fuse, update_matrix

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class AdaptedConv(AdapterLayer):
    """An nn.Conv1d, nn.Conv2d or nn.Conv3d with W + ΔW, or plus a convolution with ΔW: see `AdaptedLinear` for when."""

    def sizes(self) -> Sizes:
        weight = self.get_base_layer().weight
        return {"weight": (weight.shape[0], math.prod(weight.shape[1:]))}

    def stored(self, delta: Tensor, name: str) -> Tensor:
        return delta.reshape(self.get_base_layer().weight.shape)

    def adapted(self, x: Tensor, active: Sequence[Any], *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not can_fuse(self.base_layer, x, CONVOLUTIONS):
            return super().adapted(x, active, *args, **kwargs)
        weight = self.base_layer.weight
        for adapter in active:
            weight = weight + self.stored(update_matrix(adapter), "weight")
        return self.base_layer._conv_forward(x, weight, self.base_layer.bias)

    def added(self, adapter: Any, x: Tensor, y: Tensor) -> Tensor:
        base = self.get_base_layer()
        kernel = self.stored(update_matrix(adapter), "weight").to(x.dtype)
        return base._conv_forward(x, kernel, None).to(y.dtype)
