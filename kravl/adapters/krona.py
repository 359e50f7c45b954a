"""KronA: a Kronecker product update (Edalati et al., 2022, https://arxiv.org/abs/2212.10650)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.budget import Sizes
from kravl.runtime.errors import InputError


class KronA(Adapter):
    """ΔW = (A ⊗ B) cut to (out, in), with A (f, f) Kaiming-uniform and B (ceil(out / f), ceil(in / f)) zero.

    ``factor`` f sets the size: it has about f² + out * in / f² parameters, fewest near f = (out * in)^¼, and full rank
    almost surely.

    Raises:
        InputError: ``factor`` is less than 1.
    """

    def __init__(
        self, out_features: int, in_features: int, factor: int, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if factor < 1:
            raise InputError(f"factor must be at least 1, not {factor}")
        self.factor = factor
        self.a = nn.Parameter(torch.empty(factor, factor))
        self.b = nn.Parameter(torch.zeros(math.ceil(out_features / factor), math.ceil(in_features / factor)))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        def count(factor: int) -> int:
            return factor**2 + math.ceil(self.out_features / factor) * math.ceil(self.in_features / factor)

        return Sizes.of("factor", range(1, max(self.shape) + 1), count)

    def delta_weight(self) -> Tensor:
        return torch.kron(self.a, self.b)[: self.out_features, : self.in_features]
