"""WaveFT: some wavelet coefficients of the update trained (Bilican et al., 2025, https://arxiv.org/abs/2505.12532)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.dense import DenseAdapter, random_positions


class WaveFT(DenseAdapter):
    """ΔW is the inverse one-level Haar transform of a matrix with ``num_coefficients`` trained entries, cut to size.

    The quadrants of that matrix, of even sides, are the averages and the three kinds of differences of each 2 x 2 block
    of ΔW. Positions among the first (out, in) entries are random and determined by ``seed``; values start at zero.
    Without the transform it would be SHiRA. ``num_coefficients`` may be a multiple of KRAdapter's number of parameters,
    such as "1x"; ``scale`` is PEFT's default.

    Raises:
        InputError: more coefficients than the matrix has entries, or less than 1.
    """

    decays: ClassVar[Mapping[str, bool]] = {"coefficients": True}

    def __init__(
        self,
        out_features: int,
        in_features: int,
        num_coefficients: int | str = "1x",
        seed: int = 777,
        scale: float = 25.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.num_coefficients, self.seed = num_coefficients, seed
        number = self.legal_sizes().choose(num_coefficients, self.shape)
        self.coefficients = nn.Parameter(torch.zeros(number))
        positions = random_positions(out_features * in_features, number, seed)
        self.even = (out_features + out_features % 2, in_features + in_features % 2)
        padded = positions // in_features * self.even[1] + positions % in_features
        self.register_buffer("positions", padded, persistent=False)
        self.positions: Tensor

    def legal_sizes(self) -> Sizes:
        return Sizes.numbers("num_coefficients", self.shape)

    def delta_weight(self) -> Tensor:
        flat = self.coefficients.new_zeros(self.even[0] * self.even[1])
        spectrum = flat.index_put((self.positions,), self.coefficients).view(self.even)
        return haar(spectrum, quadrants_first=True)[: self.out_features, : self.in_features]

    def write(self, weight: Tensor, out: Tensor) -> None:
        torch.add(weight, self.delta_weight(), alpha=self.scale, out=out)

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        if grad_update.shape != self.even:
            rows, columns = (even - side for even, side in zip(self.even, grad_update.shape, strict=True))
            grad_update = nn.functional.pad(grad_update, (0, columns, 0, rows))
        spectrum = haar(grad_update, quadrants_first=False)
        return {"coefficients": spectrum.reshape(-1)[self.positions].mul_(self.scale)}


def haar(matrix: Tensor, quadrants_first: bool) -> Tensor:
    """The orthogonal one-level Haar transform of a matrix of even sides, between quadrants and 2 x 2 blocks.

    From quadrants to blocks it is the inverse transform, from blocks to quadrants its transpose, the transform itself.
    """
    rows, columns = matrix.shape[0] // 2, matrix.shape[1] // 2
    grid = matrix.view(2, rows, 2, columns) if quadrants_first else matrix.view(rows, 2, columns, 2).permute(1, 0, 3, 2)
    sums, differences = grid[0] + grid[1], grid[0] - grid[1]  # (rows, 2, columns)
    left, right = (torch.stack([part[:, 0] + part[:, 1], part[:, 0] - part[:, 1]]) for part in (sums, differences))
    parts = torch.stack([left, right], 1).mul_(0.5)  # (2, 2, rows, columns)
    order = (2, 0, 3, 1) if quadrants_first else (0, 2, 1, 3)
    return parts.permute(order).reshape(2 * rows, 2 * columns)
