"""MiSS: one block shared along the input (Kang and Yin, 2024, https://arxiv.org/abs/2409.15371)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter


class MiSS(LowRankAdapter):
    """Column j of ΔW is column j mod r of D (out, r), which starts at zero: r sums of inputs, each with its weights.

    ``rank`` may be a multiple of KRAdapter's number of parameters, such as "1x"; its variant `Bat` is another file.

    Raises:
        InputError: ``rank`` is less than 1, or more than there are inputs.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        self.inner = self.legal_sizes().choose(rank, self.shape)
        self.d = nn.Parameter(torch.zeros(out_features, self.inner))

    def legal_sizes(self) -> Sizes:
        return Sizes("rank", range(1, self.in_features + 1), lambda rank: rank * self.out_features)

    def factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(self.inner, dtype=self.d.dtype, device=self.d.device)
        return self.d, one.repeat(1, math.ceil(self.in_features / self.inner))[:, : self.in_features]

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.d.requires_grad, False
