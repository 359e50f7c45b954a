"""HiRA: the weight times a rank-r matrix, entry by entry (Huang et al., ICLR 2025, https://openreview.net/forum?id=TwJrTz9cRS)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.dense import DenseAdapter
from kravl.runtime.errors import InputError


class HiRA(DenseAdapter):
    """The update is W ∘ (B A), with B (out, r) zero and A (r, in) Kaiming-uniform: of rank up to r times that of W.

    Where W is zero, the update is. ``rank`` may be a multiple of KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``rank`` is less than 1; when attached, the weight is all zeros, which no such update changes.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        r = self.legal_sizes().choose(rank, self.shape)
        self.a = nn.Parameter(torch.empty(r, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, r))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape))

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        if not weight.is_meta and not weight.any():
            raise InputError(
                f"HiRA multiplies the entries of the pretrained weight, and those of a {self.out_features} x "
                f"{self.in_features} matrix are all zero: no update of it is possible; leave it out of the sites, or "
                "take a method that adds to it"
            )

    def delta_weight(self) -> Tensor:
        """B A, the factor of each entry of W."""
        return self.b @ self.a

    def update(self, weight: Tensor) -> Tensor:
        return self.scale * (weight.to(self.b.dtype) * self.delta_weight())

    def write(self, weight: Tensor, out: Tensor) -> None:
        torch.mm(self.b, self.a, out=out)
        torch.addcmul(weight, weight, out, value=self.scale, out=out)

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        towards_factor = grad_update.mul_(weight).mul_(self.scale)
        return {"a": self.b.T @ towards_factor, "b": towards_factor @ self.a.T}
