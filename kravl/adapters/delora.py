"""DeLoRA: a low-rank update of bounded norm (Bini et al., ICLR 2025, https://arxiv.org/abs/2503.18225)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter

SMALLEST = 1e-4  # a norm that is divided by, as in its authors' code


class DeLoRA(LowRankAdapter):
    """ΔW = (λ / r) Σ_i b_i a_iᵀ / (|b_i| |a_i|), each column times the norm of that of the pretrained weight.

    A (r, in) is Kaiming-uniform, B (out, r) zero, and the trained λ starts at ``boundary``: it decides how far the
    update goes, A and B where to. ``rank`` may be a multiple of KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``rank`` is less than 1, or more than the longer side.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", boundary: float = 15.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, dropout=dropout)
        self.rank, self.boundary = rank, boundary
        self.inner = r = self.legal_sizes().choose(rank, self.shape)
        self.a = nn.Parameter(torch.empty(r, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, r))
        self.strength = nn.Parameter(torch.tensor([float(boundary)]))
        self.column_norms = nn.Parameter(torch.ones(in_features), requires_grad=False)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape), 1)

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        self.column_norms.data.copy_(torch.linalg.vector_norm(weight.to(self.dtype), dim=0))

    def factors(self) -> tuple[Tensor, Tensor]:
        norms_a = torch.linalg.vector_norm(self.a, dim=1).clamp(min=SMALLEST)
        norms_b = torch.linalg.vector_norm(self.b, dim=0).clamp(min=SMALLEST)
        return self.b * (self.strength / self.inner / (norms_a * norms_b)), self.a * self.column_norms

    @property
    def trained(self) -> tuple[bool, bool]:
        return True, self.a.requires_grad
