"""DoRA: a weight's magnitude and direction trained separately (Liu et al., ICML 2024, https://arxiv.org/abs/2402.09353)."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, check_rank
from kravl.adapters.budget import Sizes


class DoRA(Adapter):
    """The adapted weight is m * V / |V| row by row; V = W + (alpha / r) B A, and the trainable m starts at |W|.

    B (out, r) is zero and A (r, in) Kaiming-uniform, as in LoRA. The norm is differentiated too: this is the formula
    itself, without the shortcut that treats |V| as a constant. A row of zeros stays zero.
    """

    decays: ClassVar[Mapping[str, bool]] = {"magnitude": False}  # at zero the weight itself would be gone, not ΔW

    def __init__(self, out_features: int, in_features: int, rank: int, alpha: float, dropout: float = 0.0) -> None:
        check_rank(rank)
        super().__init__(out_features, in_features, alpha / rank, dropout)
        self.rank, self.alpha = rank, alpha
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        self.magnitude = nn.Parameter(torch.ones(out_features, 1))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape), self.out_features)

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        self.magnitude.data.copy_(_row_norm(weight.to(self.magnitude.dtype)))

    def delta_weight(self) -> Tensor:
        return self.b @ self.a

    def update(self, weight: Tensor) -> Tensor:
        weight = weight.to(self.magnitude.dtype)
        direction = weight + self.scale * self.delta_weight()
        # the quotient first: it is exactly 1 at the start, so that the update is exactly 0
        return self.magnitude / _row_norm(direction) * direction - weight


def _row_norm(matrix: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    return norm.clamp(min=torch.finfo(matrix.dtype).tiny)
