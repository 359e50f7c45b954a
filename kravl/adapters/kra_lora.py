"""KRAdapter plus a small LoRA at KRAdapter's number of parameters: the low-rank part that KRAdapter cannot express.

An experiment of kravl's own (experiments/matrix_approximation), not a published method.
"""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, check_rank
from kravl.adapters.budget import Sizes
from kravl.adapters.kra import inner_size
from kravl.runtime.errors import InputError


class KRALoRA(Adapter):
    """ΔW = K + B A, with K a Khatri-Rao product whose rows i share v_i in groups of ``share``, and B A of ``rank``.

    KRAdapter has at least 2 * m * sqrt(M) parameters, K about 2 * m * sqrt(M / share); ``rank`` None spends the
    difference on B A, rounded down but at least 1. With m the shorter and M the longer side, row i of
    K is v_(i // share) ⊗ u_i, U (m, r) is zero, V (ceil(m / share), c) Kaiming-uniform with negative slope 5,
    r = floor(sqrt(m / share)), c = ceil(M / r); if the shorter side is the input, K is transposed. B is zero and A
    Kaiming-uniform, as in LoRA.

    Raises:
        InputError: ``share`` or ``rank`` is not a positive whole number.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        share: int = 2,
        rank: int | None = None,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if not isinstance(share, int) or share < 1:
            raise InputError(f"share must be a whole number of at least 1, not {share!r}")
        self.share, self.rank = share, rank
        short, long = sorted((out_features, in_features))
        r = max(1, math.isqrt(short // share))
        self.u = nn.Parameter(torch.zeros(short, r))
        self.v = nn.Parameter(torch.empty(math.ceil(short / share), math.ceil(long / r)))
        nn.init.kaiming_uniform_(self.v, a=5.0)
        if rank is None:
            r_kra = inner_size("short", short, long)
            saved = short * (r_kra + math.ceil(long / r_kra)) - self.u.numel() - self.v.numel()
            rank = max(1, saved // (short + long))
        check_rank(rank)
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape), self.u.numel() + self.v.numel())

    def delta_weight(self) -> Tensor:
        short, long = self.u.shape[0], max(self.out_features, self.in_features)
        v = self.v.repeat_interleave(self.share, dim=0)[:short]
        product = (v.unsqueeze(2) * self.u.unsqueeze(1)).flatten(1)[:, :long]
        return (product if self.out_features <= self.in_features else product.T) + self.b @ self.a
