"""Bat: MiSS's variant, whose blocks also multiply the weight's (Kang and Yin, 2024, https://arxiv.org/abs/2409.15371)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes, common_divisors
from kravl.adapters.dense import DenseAdapter


class Bat(DenseAdapter):
    """Each r x r block of the update is W_block D + D, with one D (r, r) for each row of blocks, zero at the start.

    ``rank`` r divides both sides; or it is a multiple of KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``rank`` does not divide both sides.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        r = self.legal_sizes().choose(rank, self.shape)
        self.d = nn.Parameter(torch.zeros(out_features // r, r, r))

    def legal_sizes(self) -> Sizes:
        return Sizes("rank", common_divisors(*self.shape), lambda rank: rank * self.out_features)

    def delta_weight(self) -> Tensor:
        """The part that does not depend on the weight: D, repeated along the input."""
        r = self.d.shape[1]
        return self.d.unsqueeze(2).expand(-1, -1, self.in_features // r, -1).reshape(self.shape)

    def update(self, weight: Tensor) -> Tensor:
        multiplied = self._rows(weight.to(self.d.dtype)) @ self.d
        return self.scale * (multiplied.view(self.shape) + self.delta_weight())

    def write(self, weight: Tensor, out: Tensor) -> None:
        rows = self._rows(weight.to(out.dtype))
        torch.baddbmm(rows, rows, self.d, alpha=self.scale, out=self._rows(out))
        self._blocks(out).add_(self.d.unsqueeze(2), alpha=self.scale)

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        added = self._blocks(grad_update).sum(2)
        multiplied = self._rows(weight.to(self.d.dtype)).mT @ self._rows(grad_update)
        return {"d": multiplied.add_(added).mul_(self.scale)}

    def _rows(self, matrix: Tensor) -> Tensor:
        """(out / r, in, r): the rows of each row of blocks, cut to the width of a block."""
        return matrix.reshape(len(self.d), self.in_features, -1)

    def _blocks(self, matrix: Tensor) -> Tensor:
        """(out / r, r, in / r, r)"""
        r = self.d.shape[1]
        return matrix.view(len(self.d), r, self.in_features // r, r)
