"""KRAdapter: a Khatri-Rao product update (Albert et al., ICCV 2025, https://arxiv.org/abs/2508.00230)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.errors import InputError, unknown


class KRAdapter(Adapter):
    """Row i of ΔW is v_i ⊗ u_i: entry (i, a * r + b) is V[i, a] * U[i, b], cut to the longer side.

    With m the shorter and M the longer side, U is (m, r) and zero, V is (m, c) and Kaiming-uniform with negative slope
    ``init_a``, c = ceil(M / r). ``split`` says which side r is the floored square root of: "short", as the paper's
    released layer, or "long", as its toy experiment; or it is r itself. If the shorter side is the input, ΔW is
    transposed. m * (r + c) parameters, fewest near r = sqrt(M), and full rank almost surely; a generic rank-1 update is
    out of reach unless r is M.

    Raises:
        InputError: ``split`` is neither of the two, nor a whole number from 1 to M.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        scale: float = 2.0,
        split: str | int = "short",
        init_a: float = 5.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.split, self.init_a = split, init_a
        short, long = sorted((out_features, in_features))
        r = inner_size(split, short, long)
        self.u = nn.Parameter(torch.zeros(short, r))
        self.v = nn.Parameter(torch.empty(short, math.ceil(long / r)))
        nn.init.kaiming_uniform_(self.v, a=init_a)

    def delta_weight(self) -> Tensor:
        if self.out_features <= self.in_features:
            return (self.v.unsqueeze(2) * self.u.unsqueeze(1)).flatten(1)[:, : self.in_features]
        return (self.v.T.unsqueeze(1) * self.u.T.unsqueeze(0)).flatten(0, 1)[: self.out_features]


def inner_size(split: str | int, short: int, long: int) -> int:
    """r of `KRAdapter` for a matrix whose sides are ``short`` and ``long``. Raises InputError as it does."""
    if isinstance(split, int):
        if not 1 <= split <= long:
            raise InputError(f"split must be short, long or a whole number from 1 to {long}, not {split}")
        return split
    if split not in ("short", "long"):
        raise unknown("split", split, ("short", "long"))
    return math.isqrt(short if split == "short" else long)
