"""The adapted nn.Linear, and the product with a weight whose row blocks are adapted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.parameter import Block, blocks_of, reads_adapted
from kravl.adapters.product import product


def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Sequence[Block]) -> Tensor:
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
