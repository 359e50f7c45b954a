"""GraLoRA: a grid of low-rank blocks (Jung et al., NeurIPS 2025, https://arxiv.org/abs/2505.20355)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes, common_divisors
from kravl.adapters.low_rank import LowRankAdapter


class GraLoRA(LowRankAdapter):
    """Block (j, n) of a k x k grid is B_jn A_jn of rank r / k: as many parameters as a LoRA of rank r, rank up to k r.

    The A are Kaiming-uniform, the B zero. It is computed as a LoRA of rank k r whose factors have zeros: up (out, k r)
    has blocks on the diagonal. ``grid`` k divides both sides; None is 2, PEFT's default, or 1, which is LoRA, where a
    side is odd. ``rank`` r is a multiple of k, or a multiple of KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``grid`` does not divide both sides, or ``rank`` is not a multiple of it.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int | str = "1x",
        grid: int | None = None,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank, self.grid = rank, grid
        k, r = self._grid(), self.legal_sizes().choose(rank, self.shape)
        self.inner = k * r
        self.a = nn.Parameter(torch.empty(k, r, in_features // k))
        self.b = nn.Parameter(torch.zeros(k, out_features // k, r))
        for block in self.a.data:
            nn.init.kaiming_uniform_(block, a=math.sqrt(5))

    def _grid(self) -> int:
        sides = Sizes("grid", common_divisors(*self.shape), lambda grid: grid)
        return math.gcd(2, *self.shape) if self.grid is None else sides.pick(self.grid, self.shape)

    def legal_sizes(self) -> Sizes:
        k = self._grid()
        return Sizes("rank", range(k, max(k, *self.shape) + 1, k), lambda rank: rank * sum(self.shape))

    def factors(self) -> tuple[Tensor, Tensor]:
        k, r, columns = self.a.shape
        up = torch.diag_embed(self.b.permute(1, 2, 0)).permute(2, 0, 3, 1)  # (k, out / k, k, r)
        blocks = self.a.view(k, k, r // k, columns).permute(1, 2, 3, 0)
        down = torch.diag_embed(blocks).permute(0, 3, 1, 4, 2)  # (k, k, r / k, k, in / k)
        return up.reshape(self.out_features, k * r), down.reshape(k * r, self.in_features)

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.b.requires_grad, self.a.requires_grad
