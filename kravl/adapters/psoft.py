"""PSOFT: a rotation within the leading singular directions (Wu et al., PSOFT, 2025, https://arxiv.org/abs/2505.11235)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter
from kravl.adapters.svd import leading_directions


class PSOFT(LowRankAdapter):
    """ΔW = U S (diag(β) R diag(α) - I) Vᵀ, with U S Vᵀ the best rank-r approximation of the pretrained weight.

    R = (I + Q)(I - Q)⁻¹ is Cayley's transform of a skew-symmetric Q, whose upper triangle starts at zero; the vectors β
    and α (r,) start at 1. U S and Vᵀ are frozen and follow from the weight: checkpoints do not hold them. It has
    r (r - 1) / 2 + 2 r parameters, however large the matrix is. ``rank`` may be a multiple of KRAdapter's, as "1x".

    Raises:
        InputError: ``rank`` is less than 1, or more than the shorter side.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        self.inner = r = self.legal_sizes().choose(rank, self.shape)
        self.beta, self.alpha = nn.Parameter(torch.ones(r)), nn.Parameter(torch.ones(r))
        self.triangle = nn.Parameter(torch.zeros(r * (r - 1) // 2))
        self.left = nn.Parameter(torch.zeros(out_features, r), requires_grad=False)
        self.right = nn.Parameter(torch.zeros(r, in_features), requires_grad=False)
        self.register_buffer("places", torch.triu_indices(r, r, 1, device="cpu"), persistent=False)
        self.places: Tensor

    def legal_sizes(self) -> Sizes:
        return Sizes("rank", range(1, min(self.shape) + 1), lambda rank: rank * (rank + 3) // 2)

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        u, s, vh = leading_directions(weight, self.inner)
        self.left.data.copy_(u * s)
        self.right.data.copy_(vh)

    def factors(self) -> tuple[Tensor, Tensor]:
        """The rotation is multiplied into the factor of the shorter side."""
        inner = self.beta.unsqueeze(1) * self.rotation() * self.alpha - self._one()
        return (self.left @ inner, self.right) if self.trained[0] else (self.left, inner @ self.right)

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.out_features <= self.in_features, self.out_features > self.in_features

    def rotation(self) -> Tensor:
        """R (r, r)."""
        upper = self.triangle.new_zeros(self.inner, self.inner).index_put(tuple(self.places), self.triangle)
        q = upper - upper.T
        return torch.linalg.solve(self._one() - q, self._one() + q)  # the two factors commute

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        """With R = 2 M - I, M = (I - Q)⁻¹: dL/dQ = 2 Mᵀ dL/dR Mᵀ, without another solution of a linear system."""
        if grad_up is not None:
            grad_inner = self.left.T @ grad_up.T
        else:
            assert grad_down is not None
            grad_inner = grad_down @ self.right.T
        rotation = self.rotation()
        inverse = (rotation + self._one()).T
        beta, alpha = self.beta.unsqueeze(1), self.alpha
        grad_q = inverse @ (beta * grad_inner * alpha) @ inverse / 2
        rows, columns = self.places
        by_name = {
            "beta": (grad_inner * rotation * alpha).sum(1),
            "alpha": (grad_inner * rotation * beta).sum(0),
            "triangle": grad_q[rows, columns] - grad_q[columns, rows],
        }
        return [by_name[name] for name in self.trainable()]

    def _one(self) -> Tensor:
        return torch.eye(self.inner, dtype=self.beta.dtype, device=self.beta.device)
