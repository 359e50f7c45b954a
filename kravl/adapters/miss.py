"""MiSS: one block shared along the input (Kang and Yin, 2024, https://arxiv.org/abs/2409.15371)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, VectorJacobianProduct
from kravl.adapters.budget import Sizes


class MiSS(Adapter):
    """Column j of ΔW is column j mod r of D (out, r), which starts at zero: r sums of inputs, each with its weights.

    So ΔW x is D times those sums: one thin product. ``rank`` r may be a multiple of KRAdapter's number of parameters,
    such as "1x"; the variant `Bat` is another file.

    Raises:
        InputError: ``rank`` is less than 1, or more than there are inputs.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        self.d = nn.Parameter(torch.zeros(out_features, self.legal_sizes().choose(rank, self.shape)))

    def legal_sizes(self) -> Sizes:
        return Sizes("rank", range(1, self.in_features + 1), lambda rank: rank * self.out_features)

    def delta_weight(self) -> Tensor:
        return self.d.repeat(1, math.ceil(self.in_features / self.d.shape[1]))[:, : self.in_features]

    def applies_factors(self, x: Tensor, mask: Tensor | None) -> bool:
        return mask is None

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        return mask is None

    def apply_factors(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | None:
        sums = self._sums(x)
        y.addmm_(sums, self.d.to(x.dtype).T, alpha=self.scale)
        return sums

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        if mask is not None or out is not None:
            return super().recompute(weight, mask, out, hidden)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            if grad_x is not None:
                grad_sums = (gradient @ self.d.to(x.dtype)).mul_(self.scale)
                for part in grad_x.split(self.d.shape[1], 1):
                    part.add_(grad_sums[:, : part.shape[1]])
            if not self.d.requires_grad:
                return ()
            sums = self._sums(x) if hidden is None else hidden
            return [(gradient.T @ sums).to(self.dtype).mul_(self.scale)]

        return vjp

    def _sums(self, x: Tensor) -> Tensor:
        """(tokens, r): the sum of every r-th of the inputs ``x`` (tokens, in)."""
        r = self.d.shape[1]
        whole = self.in_features // r * r
        sums = x[:, :whole].reshape(len(x), -1, r).sum(1)
        sums[:, : self.in_features - whole] += x[:, whole:]
        return sums
