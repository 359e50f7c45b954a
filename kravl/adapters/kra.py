"""KRAdapter: a Khatri-Rao product update (Albert et al., ICCV 2025, https://arxiv.org/abs/2508.00230)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.errors import unknown


class KRAdapter(Adapter):
    """Row i of ΔW is v_i ⊗ u_i: entry (i, a * r + b) is V[i, a] * U[i, b], cut to the longer side.

    With m the shorter and M the longer side, U is (m, r) and zero, V is (m, c) and Kaiming-uniform with negative slope
    ``init_a``, c = ceil(M / r). ``split`` says which side r is the floored square root of: "short", as the paper's
    released layer, or "long", as its toy experiment. If the shorter side is the input, ΔW is transposed. About
    2 * m * sqrt(M) parameters, and full rank almost surely; a generic rank-1 update is out of reach.

    Raises:
        InputError: ``split`` is neither of the two.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        scale: float = 2.0,
        split: str = "short",
        init_a: float = 5.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if split not in ("short", "long"):
            raise unknown("split", split, ("short", "long"))
        self.split, self.init_a = split, init_a
        short, long = sorted((out_features, in_features))
        r = math.isqrt(short if split == "short" else long)
        self.u = nn.Parameter(torch.zeros(short, r))
        self.v = nn.Parameter(torch.empty(short, math.ceil(long / r)))
        nn.init.kaiming_uniform_(self.v, a=init_a)

    def delta_weight(self) -> Tensor:
        if self.out_features <= self.in_features:
            return (self.v.unsqueeze(2) * self.u.unsqueeze(1)).flatten(1)[:, : self.in_features]
        return (self.v.T.unsqueeze(1) * self.u.T.unsqueeze(0)).flatten(0, 1)[: self.out_features]
