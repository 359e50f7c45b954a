"""LoKr: a Kronecker product whose factors may be low-rank (Yeh et al., ICLR 2024, https://arxiv.org/abs/2309.14859)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes, common_divisors
from kravl.adapters.dense import DenseAdapter
from kravl.runtime.errors import InputError


class LoKr(DenseAdapter):
    """ΔW = W1 ⊗ W2 with W1 (f, f) zero and W2 (out / f, in / f) Kaiming-uniform, the start that PEFT has.

    ``factor`` f divides both sides; or it is a multiple of KRAdapter's number of parameters, such as "1x". With
    ``rank`` r, W2 is a product B A of that rank. Unlike KronA, which starts with W2 at zero and cuts what is too large.

    Raises:
        InputError: ``factor`` does not divide both sides, or ``rank`` is less than 1.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        factor: int | str = "1x",
        rank: int | None = None,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if rank is not None and (not isinstance(rank, int) or rank < 1):
            raise InputError(f"rank must be a whole number of at least 1, or null for a W2 of full rank, not {rank!r}")
        self.factor, self.rank = factor, rank
        f = self.legal_sizes().choose(factor, self.shape)
        self.w1 = nn.Parameter(torch.zeros(f, f))
        if rank is None:
            self.w2 = nn.Parameter(torch.empty(out_features // f, in_features // f))
        else:
            self.b = nn.Parameter(torch.empty(out_features // f, rank))
            self.a = nn.Parameter(torch.empty(rank, in_features // f))
        for factor_of_w2 in list(self.parameters())[1:]:
            nn.init.kaiming_uniform_(factor_of_w2, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        def count(f: int) -> int:
            rows, columns = self.out_features // f, self.in_features // f
            return f * f + (rows * columns if self.rank is None else self.rank * (rows + columns))

        return Sizes.of("factor", common_divisors(*self.shape), count)

    def second(self) -> Tensor:
        """W2 (out / f, in / f)."""
        return self.w2 if self.rank is None else self.b @ self.a

    def delta_weight(self) -> Tensor:
        return torch.kron(self.w1, self.second())

    def write(self, weight: Tensor, out: Tensor) -> None:
        f, second = len(self.w1), self.second()
        grid = (f, len(second), f, second.shape[1])
        first = self.w1.view(f, 1, f, 1)
        torch.addcmul(weight.reshape(grid), first, second.unsqueeze(1), value=self.scale, out=out.view(grid))

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        f, second = len(self.w1), self.second()
        blocks = grad_update.view(f, len(second), f, -1).transpose(1, 2).reshape(f * f, -1)
        return self._split(blocks @ second.flatten(), (self.w1.view(1, -1) @ blocks).view(second.shape))

    def _split(self, grad_first: Tensor, grad_second: Tensor) -> dict[str, Tensor]:
        grads = {"w1": grad_first.view_as(self.w1)}
        if self.rank is None:
            grads["w2"] = grad_second
        else:
            grads |= {"b": grad_second @ self.a.T, "a": self.b.T @ grad_second}
        return {name: gradient.mul_(self.scale) for name, gradient in grads.items()}
