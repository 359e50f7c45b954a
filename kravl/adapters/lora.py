"""LoRA: a rank-r update (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters.base import Adapter, check_rank


class LoRA(Adapter):
    """ΔW = B A with B (out, r) zero and A (r, in) Kaiming-uniform, scaled by alpha / r.

    ``rank_stabilised`` scales by alpha / sqrt(r) (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732), as CLIP-LoRA
    does. ``dropout`` acts on each entry of the input where the two thin products are used, which is everywhere but on
    bare projections.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        alpha: float,
        rank_stabilised: bool = False,
        dropout: float = 0.0,
    ) -> None:
        check_rank(rank)
        scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
        super().__init__(out_features, in_features, scale, dropout)
        self.rank, self.alpha, self.rank_stabilised = rank, alpha, rank_stabilised
        self.input_dropout = nn.Dropout(dropout)  # a module: whoever looks for random parts finds it
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def delta_weight(self) -> Tensor:
        return self.b @ self.a

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.input_dropout(x)
        return self.scale * F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)
