"""KronA: a Kronecker product update (Edalati et al., 2022, https://arxiv.org/abs/2212.10650)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.budget import Sizes


class KronA(Adapter):
    """ΔW = (A ⊗ B) cut to (out, in), with A (f, f) Kaiming-uniform and B (ceil(out / f), ceil(in / f)) zero.

    ``factor`` f sets the size, or is a multiple of KRAdapter's number of parameters, such as "1x": it has about
    f² + out * in / f² parameters, fewest near f = (out * in)^¼, and full rank almost surely.

    Raises:
        InputError: ``factor`` is less than 1, or neither a number nor a multiple.
    """

    def __init__(
        self, out_features: int, in_features: int, factor: int | str, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.factor = factor
        # a number may be larger than the sides, of which the product is then cut
        f = factor if isinstance(factor, int) and factor >= 1 else self.legal_sizes().choose(factor, self.shape)
        self.a = nn.Parameter(torch.empty(f, f))
        self.b = nn.Parameter(torch.zeros(math.ceil(out_features / f), math.ceil(in_features / f)))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        def count(factor: int) -> int:
            return factor**2 + math.ceil(self.out_features / factor) * math.ceil(self.in_features / factor)

        return Sizes.of("factor", range(1, max(self.shape) + 1), count)

    def delta_weight(self) -> Tensor:
        return torch.kron(self.a, self.b)[: self.out_features, : self.in_features]
