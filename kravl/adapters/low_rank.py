"""Updates that are a product of two factors, multiplied in the order that takes the fewest operations."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from kravl.adapters.base import Adapter, UpdateGradients, VectorJacobianProduct
from kravl.adapters.workspace import scratch

HALF_GAIN = 4  # how many times as fast products in half precision are: measured on a CPU with AMX; more on GPUs
SHORT = 64  # below this inner size a product is bound by memory, and half precision gains nothing
VjpArguments = tuple[Tensor, Tensor, Tensor | None]  # of a `VectorJacobianProduct`


class ProductOrder(NamedTuple):
    """The order of products.

    ``apply_factors``: the tokens are multiplied by one factor after the other, else ΔW is added to the weight;
    ``apply_factors_backward``: the same for the gradient of the input; ``dense``: the factors' gradients are computed
    from the gradient of the full ΔW, else from the tokens.
    """

    apply_factors: bool
    apply_factors_backward: bool
    dense: bool


class Factors(NamedTuple):
    """Sizes of the factors (out, inner) and (inner, in), and whether each depends on trainable parameters."""

    inner: int
    out: int
    columns: int
    trains_up: bool
    trains_down: bool


ORDERS = tuple(ProductOrder(*choices) for choices in product((False, True), repeat=3))


def operations(tokens: int, factors: Factors, order: ProductOrder, slower: int = 1) -> int:
    """Multiplications that the update adds, forward and backward; those of merging count ``slower`` times."""
    k, rows, columns, up, down = factors
    merge, hidden_in, hidden_out = k * rows * columns, tokens * k * columns, tokens * k * rows
    total = hidden_in + hidden_out if order.apply_factors else slower * merge
    total += hidden_in if order.apply_factors_backward else slower * merge
    if order.dense:
        return total + tokens * rows * columns + hidden_out * order.apply_factors_backward + merge * (up + down)
    total += hidden_out * (order.apply_factors_backward or down) + hidden_in * down
    return total + up * (hidden_out + hidden_in * (not order.apply_factors))


def cheapest(tokens: int, factors: Factors, slower: int = 1) -> ProductOrder:
    """The order with the fewest `operations`."""
    return min(ORDERS, key=lambda order: operations(tokens, factors, order, slower))


cached_cheapest = lru_cache(maxsize=4096)(cheapest)  # called several times in every layer of every step


class LowRankAdapter(Adapter):
    """ΔW = up @ down, of shapes (out, k) and (k, in), multiplied in the order that is cheapest for the shapes.

    Where tokens are multiplied by one factor after the other, the (tokens, k) between is saved for the backward pass.
    """

    inner: int  # k

    @property
    @abstractmethod
    def trained(self) -> tuple[bool, bool]:
        """Whether ``up`` and ``down`` depend on trainable parameters."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """``up`` (out, k) and ``down`` (k, in), differentiable in the parameters."""

    def delta_weight(self) -> Tensor:
        up, down = self.factors()
        return up @ down

    def order(self, tokens: int, dtype: torch.dtype, mask: Tensor | None) -> ProductOrder:
        """The cheapest order for so many ``tokens`` of ``dtype``.

        A mask of the input's entries, which no update of the weight can express, needs the factors applied to them.
        """
        if masks_entries(mask):
            return ProductOrder(apply_factors=True, apply_factors_backward=True, dense=False)
        slower = HALF_GAIN if dtype.itemsize < self.dtype.itemsize and self.inner >= SHORT else 1
        choose = cheapest if torch.compiler.is_compiling() else cached_cheapest
        return choose(tokens, self.sizes(), slower)

    def sizes(self) -> Factors:
        """The sizes of `factors`, and which of them train."""
        return Factors(self.inner, self.out_features, self.in_features, *self.trained)

    def applies_factors(self, x: Tensor, mask: Tensor | None) -> bool:
        return self.order(x.shape[0], x.dtype, mask).apply_factors

    def apply_factors(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | None:
        up, down = self.masked_factors(mask)
        hidden = self.dropped(x, mask) @ down.to(x.dtype).T
        y.addmm_(hidden, up.to(x.dtype).T, alpha=self.scale)
        return None if self.order(x.shape[0], x.dtype, mask).dense or not self.trained[0] else hidden

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        up, down = self.masked_factors(mask)
        torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        return self.order(x.shape[0], x.dtype, mask).apply_factors_backward

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        up, down = self.masked_factors(mask)
        if out is not None:
            torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            factors = up.to(x.dtype), down.to(x.dtype)
            return self.gradients(*self._pull(factors, mask, hidden, (gradient, x, grad_x)), mask)

        return vjp

    def recompute_update(self, weight: Tensor, mask: Tensor | None, out: Tensor | None) -> UpdateGradients:
        up, down = self.masked_factors(mask)
        if out is not None:
            torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

        def from_update(grad_update: Tensor) -> Sequence[Tensor | None]:
            factors = up.to(grad_update.dtype), down.to(grad_update.dtype)
            return self.gradients(*self._pull_update(factors, grad_update), mask)

        return from_update

    def gradients(
        self, grad_up: Tensor | None, grad_down: Tensor | None, mask: Tensor | None
    ) -> Sequence[Tensor | None]:
        """Of the trainable parameters, from those of upᵀ (k, out) and down (k, in) of `masked_factors`, unscaled.

        The given gradients, of the factors that are `trained`, may be overwritten.
        """
        if not any(self.trained):
            return ()
        grad_up, grad_down = self._scaled(grad_up), self._scaled(grad_down)
        if grad_down is not None and mask is not None and not masks_entries(mask):
            grad_down *= mask
        return self.pull_back(grad_up, grad_down)

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        """Gradients of the trainable parameters from those of upᵀ (k, out) and down (k, in), where `trained`.

        The given gradients may be overwritten.
        """
        detached_parameters = self.detached_parameters()
        with torch.enable_grad():
            up, down = self.with_parameters(detached_parameters).factors()
            pairs = [(factor, gradient) for factor, gradient in ((up.T, grad_up), (down, grad_down))]
        factors, gradients = zip(*[pair for pair in pairs if pair[1] is not None], strict=True)
        return torch.autograd.grad(factors, list(detached_parameters.values()), gradients, allow_unused=True)

    def _pull(
        self, factors: tuple[Tensor, Tensor], mask: Tensor | None, hidden: Tensor | None, arguments: VjpArguments
    ) -> tuple[Tensor | None, Tensor | None]:
        """dL/dupᵀ (k, out) and dL/ddown (k, in), where trained, from the ``arguments`` of a vjp.

        With ΔW = up down and G = dL/dy (tokens, out), the scale left out: dL/dupᵀ = (x downᵀ)ᵀ G, dL/ddown = (G up)ᵀ x,
        or both through the dense Gᵀ x (out, in) where that takes fewer operations; dL/dx gets scale * G up down.
        """
        (up, down), (gradient, x, grad_x), (trains_up, trains_down) = factors, arguments, self.trained
        dense = self.order(x.shape[0], x.dtype, mask).dense
        needs_grad_hidden = grad_x is not None or (trains_down and not dense)
        grad_hidden = gradient @ up if needs_grad_hidden else gradient  # (tokens, k)
        if grad_x is not None and not masks_entries(mask):
            grad_x.addmm_(grad_hidden, down, alpha=self.scale)
        elif grad_x is not None:
            grad_x.add_(self.dropped(grad_hidden @ down, mask), alpha=self.scale)
        if dense:
            update = torch.mm(gradient.T, x, out=scratch("matrix", (up.shape[0], down.shape[1]), x, x.dtype))
            return self._pull_update(factors, update)
        grad_up = (x @ down.T if hidden is None else hidden).T @ gradient if trains_up else None
        return grad_up, grad_hidden.T @ self.dropped(x, mask) if trains_down else None

    def _pull_update(self, factors: tuple[Tensor, Tensor], grad_update: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """dL/dupᵀ (k, out) and dL/ddown (k, in), where trained, from dL/dΔW (out, in)."""
        (up, down), (trains_up, trains_down) = factors, self.trained
        return down @ grad_update.T if trains_up else None, up.T @ grad_update if trains_down else None

    def _scaled(self, gradient: Tensor | None) -> Tensor | None:
        return None if gradient is None else gradient.to(self.dtype).mul_(self.scale)

    def masked_factors(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """`factors`, the columns of ``down`` multiplied by a ``mask`` of columns."""
        up, down = self.factors()
        return (up, down) if mask is None or masks_entries(mask) else (up, down * mask)

    def dropped(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x``, tokens or a map, or its gradient, with the entries dropped that a ``mask`` of entries drops."""
        return (x * mask.view(x.shape)).mul_(1 / (1 - self.dropout)) if mask is not None and masks_entries(mask) else x


def masks_entries(mask: Tensor | None) -> bool:
    """Whether ``mask`` is of the input's entries, (tokens, in) for tokens; else it is of the update's columns (in,)."""
    return mask is not None and mask.dim() == 2
