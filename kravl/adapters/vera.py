"""VeRA: trained vectors around frozen matrices (Kopiczko et al., ICLR 2024, https://arxiv.org/abs/2310.11454)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.base import check_rank
from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter


class VeRA(LowRankAdapter):
    """ΔW = diag(b) B diag(d) A; only the vectors b (out), initially zero, and d (r), initially ``d_initial``, train.

    A (r, in) and B (out, r) are frozen, Kaiming-uniform and determined by ``seed``: they are not stored in checkpoints,
    and sites of the same shape share them.
    """

    decays: ClassVar[Mapping[str, bool]] = {"b": True, "d": True}  # towards ΔW = 0, as in the script of the lineage

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        d_initial: float = 0.1,
        seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_rank(rank)
        super().__init__(out_features, in_features, dropout=dropout)
        self.rank, self.d_initial, self.seed = rank, d_initial, seed
        self.base_a = nn.Parameter(torch.empty(rank, in_features), requires_grad=False)
        self.base_b = nn.Parameter(torch.empty(out_features, rank), requires_grad=False)
        generator = torch.Generator().manual_seed(seed)
        for base in (self.base_a, self.base_b):
            nn.init.kaiming_uniform_(base, generator=generator)
        self.d = nn.Parameter(torch.full((rank,), d_initial))
        self.b = nn.Parameter(torch.zeros(out_features))

        self.inner = rank

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, 1, self.out_features)

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.b.requires_grad or self.d.requires_grad, False

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.b.unsqueeze(1) * self.base_b * self.d, self.base_a
