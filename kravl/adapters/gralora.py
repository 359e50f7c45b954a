"""GraLoRA: a grid of low-rank blocks (Jung et al., NeurIPS 2025, https://arxiv.org/abs/2505.20355)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, VectorJacobianProduct
from kravl.adapters.budget import Sizes, common_divisors


class GraLoRA(Adapter):
    """Block (j, n) of a k x k grid is B_jn A_jn of rank r / k: as many parameters as a LoRA of rank r, rank up to k r.

    The A are Kaiming-uniform, the B zero. Applied to tokens the blocks cost what a LoRA of rank r does, merged 1 / k of
    that. ``grid`` k divides both sides; None is 2, PEFT's default, or 1, which is LoRA, where a side is odd. ``rank`` r
    is a multiple of k, or a multiple of KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``grid`` does not divide both sides, or ``rank`` is not a multiple of it.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int | str = "1x",
        grid: int | None = None,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank, self.grid = rank, grid
        k, r = self._grid(), self.legal_sizes().choose(rank, self.shape)
        self.a = nn.Parameter(torch.empty(k, r, in_features // k))
        self.b = nn.Parameter(torch.zeros(k, out_features // k, r))
        for block in self.a.data:
            nn.init.kaiming_uniform_(block, a=math.sqrt(5))

    def _grid(self) -> int:
        sides = Sizes("grid", common_divisors(*self.shape), lambda grid: grid)
        return math.gcd(2, *self.shape) if self.grid is None else sides.pick(self.grid, self.shape)

    def legal_sizes(self) -> Sizes:
        k = self._grid()
        return Sizes("rank", range(k, max(k, *self.shape) + 1, k), lambda rank: rank * sum(self.shape))

    def delta_weight(self) -> Tensor:
        return torch.einsum("jons,njsi->joni", *self._factors(self.dtype)).reshape(self.shape)

    def applies_factors(self, x: Tensor, mask: Tensor | None) -> bool:
        return mask is None and len(x) * sum(self.shape) * len(self.a) < self.out_features * self.in_features

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        return self.applies_factors(x, mask)

    def apply_factors(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | None:
        hidden = self._hidden(x)
        width = y.shape[1] // len(self.b)
        for j in range(len(self.b)):  # slices: the compiler cannot write to views of `chunk`
            y[:, j * width : (j + 1) * width].addmm_(hidden[:, j].flatten(1), self.b[j].to(x.dtype).T, alpha=self.scale)
        return hidden

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        if mask is not None:
            return super().add_to(weight, mask, out)
        (left, right), k = self._factors(out.dtype), len(self.a)
        weights = (rows.chunk(k, 1) for rows in weight.to(out.dtype).chunk(k))
        targets = (rows.chunk(k, 1) for rows in out.chunk(k))
        for j, (blocks, written) in enumerate(zip(weights, targets, strict=True)):
            for n in range(k):
                torch.addmm(blocks[n], left[j, :, n], right[n, j], alpha=self.scale, out=written[n])

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        if mask is not None:
            return super().recompute(weight, mask, out, hidden)
        if out is not None:
            self.add_to(weight, mask, out)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            known = self._hidden(x) if hidden is None else hidden
            towards, k = torch.empty_like(known), len(self.a)
            grad_a, grad_b = torch.empty_like(self.a), torch.empty_like(self.b)
            for j, rows in enumerate(gradient.chunk(k, 1)):
                towards[:, j] = (rows @ self.b[j].to(x.dtype)).view_as(towards[:, j])
                grad_b[j] = rows.T @ known[:, j].flatten(1)
            for n, inputs in enumerate(x.chunk(k, 1)):
                of_columns = towards[:, :, n].flatten(1)
                grad_a[n] = of_columns.T @ inputs
                if grad_x is not None:
                    grad_x.chunk(k, 1)[n].addmm_(of_columns, self.a[n].to(x.dtype), alpha=self.scale)
            by_name = {"a": grad_a.mul_(self.scale), "b": grad_b.mul_(self.scale)}
            return [by_name[name] for name in self.trainable()]

        return vjp

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """B (k, out / k, k, r / k), of rows and columns of blocks, and A (k, k, r / k, in / k), of columns and rows."""
        k, r, _ = self.a.shape
        return self.b.to(dtype).view(k, -1, k, r // k), self.a.to(dtype).view(k, k, r // k, -1)

    def _hidden(self, x: Tensor) -> Tensor:
        """A x of every block, (tokens, k of the output, k of the input, r / k)."""
        k, r, _ = self.a.shape
        hidden = x.new_empty(len(x), k, k, r // k)
        for n, inputs in enumerate(x.chunk(k, 1)):
            hidden[:, :, n] = (inputs @ self.a[n].to(x.dtype).T).view(len(x), k, -1)
        return hidden
