"""SHiRA: some entries of the weight trained (Bhardwaj et al., NeurIPS 2024, https://arxiv.org/abs/2406.13175)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.dense import DenseAdapter, random_positions


class SHiRA(DenseAdapter):
    """ΔW has trained values, initially zero, at ``num_values`` random positions, and zeros elsewhere.

    The paper's random mask: no structure at all, and full rank almost surely, so that it is the null hypothesis of
    every claim that high rank helps. The positions are determined by ``seed`` and the shape; they are not stored in
    checkpoints. ``num_values`` may be a multiple of KRAdapter's number of parameters, such as "1x"; PEFT's ``r`` is
    r * (out + in) values.

    Raises:
        InputError: more values than the matrix has entries, or less than 1.
    """

    decays: ClassVar[Mapping[str, bool]] = {"values": True}  # entries of a matrix, which happen to be in one vector

    def __init__(
        self,
        out_features: int,
        in_features: int,
        num_values: int | str = "1x",
        seed: int = 0,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.num_values, self.seed = num_values, seed
        number = self.legal_sizes().choose(num_values, self.shape)
        self.values = nn.Parameter(torch.zeros(number))
        self.register_buffer("positions", random_positions(out_features * in_features, number, seed), persistent=False)
        self.positions: Tensor

    def legal_sizes(self) -> Sizes:
        return Sizes.numbers("num_values", self.shape)

    def delta_weight(self) -> Tensor:
        flat = self.values.new_zeros(self.out_features * self.in_features)
        return flat.index_put((self.positions,), self.values).view(self.shape)

    def write(self, weight: Tensor, out: Tensor) -> None:
        out.copy_(weight)
        out.view(-1).index_add_(0, self.positions, self.values.to(out.dtype), alpha=self.scale)

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        return {"values": grad_update.reshape(-1)[self.positions].mul_(self.scale)}
