"""SinLoRA: the sine of a rank-r update (Ji et al., ICLR 2025, https://arxiv.org/abs/2403.19243)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, check_rank
from kravl.adapters.budget import Sizes


class SinLoRA(Adapter):
    """ΔW = sin(ω B A) / sqrt(in), entry by entry, scaled by alpha / r; B (out, r) is zero, A (r, in) Kaiming-uniform.

    The sine spreads the spectrum of B A: a larger ``omega`` gives a higher rank and larger steps.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        alpha: float,
        omega: float,
        dropout: float = 0.0,
    ) -> None:
        check_rank(rank)
        super().__init__(out_features, in_features, alpha / rank, dropout)
        self.rank, self.alpha, self.omega = rank, alpha, omega
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape))

    def delta_weight(self) -> Tensor:
        return torch.sin(self.omega * (self.b @ self.a)) / math.sqrt(self.in_features)
