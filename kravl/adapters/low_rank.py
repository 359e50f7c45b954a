"""Updates that are a product of two factors, in the order of products that takes the fewest operations."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from kravl.adapters.base import Adapter, VectorJacobianProduct
from kravl.adapters.workspace import scratch

HALF_GAIN = 4  # products of half precision are as many times as fast: measured on a CPU with AMX, more on GPUs
SHORT = 64  # with fewer between its factors a product waits for memory, and gains nothing
Ends = tuple[Tensor, Tensor, Tensor | None]  # as in `VectorJacobianProduct`


class ProductOrder(NamedTuple):
    """The order of products.

    ``apply_factors``: the factors act on the tokens one after the other, else ΔW is added to the weight;
    ``chain_back``: so for the gradient of the input; ``dense``: the factors' gradients come from that of the whole
    weight, else from tokens.
    """

    apply_factors: bool
    chain_back: bool
    dense: bool


class Factors(NamedTuple):
    """Sizes of the factors (out, inner) and (inner, in), and whether parameters that train enter the one, the other."""

    inner: int
    out: int
    columns: int
    trains_up: bool
    trains_down: bool


ORDERS = tuple(ProductOrder(*choices) for choices in product((False, True), repeat=3))


def operations(tokens: int, factors: Factors, plan: ProductOrder, slower: int = 1) -> int:
    """Multiplications of the update, forward and backward, beside the frozen layer's; merging counts ``slower``."""
    k, rows, columns, up, down = factors
    merge, hidden_in, hidden_out = k * rows * columns, tokens * k * columns, tokens * k * rows
    own = slower * merge
    total = (hidden_in + hidden_out if plan.apply_factors else own) + (hidden_in if plan.chain_back else own)
    if plan.dense:
        return total + tokens * rows * columns + hidden_out * plan.chain_back + merge * (up + down)
    total += hidden_out * (plan.chain_back or down) + hidden_in * down
    return total + up * (hidden_out + hidden_in * (not plan.apply_factors))


def shortest(tokens: int, factors: Factors, slower: int = 1) -> ProductOrder:
    """The plan of the fewest `operations`."""
    return min(ORDERS, key=lambda plan: operations(tokens, factors, plan, slower))


known_shortest = lru_cache(maxsize=4096)(shortest)  # asked several times in every layer of every step


class LowRank(Adapter):
    """ΔW = up @ down, of shapes (out, k) and (k, in), multiplied in the order that the shapes make the shortest.

    A chain keeps its (tokens, k) in the middle for the backward pass.
    """

    inner: int  # k

    @property
    @abstractmethod
    def trained(self) -> tuple[bool, bool]:
        """Whether parameters that train enter up, and down."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """``up`` (out, k) and ``down`` (k, in), differentiable in the parameters."""

    def delta_weight(self) -> Tensor:
        up, down = self.factors()
        return up @ down

    def plan(self, x: Tensor, mask: Tensor | None) -> ProductOrder:
        """The choices that take the shortest for ``x``; entries of the input can only be dropped in a chain."""
        if _of_entries(mask):
            return ProductOrder(apply_factors=True, chain_back=True, dense=False)
        slower = HALF_GAIN if x.dtype.itemsize < self.dtype.itemsize and self.inner >= SHORT else 1
        choose = shortest if torch.compiler.is_compiling() else known_shortest
        return choose(x.shape[0], self.sizes(), slower)

    def sizes(self) -> Factors:
        """Those of `factors`, and which of them train."""
        return Factors(self.inner, self.out_features, self.in_features, *self.trained)

    def chains(self, x: Tensor, mask: Tensor | None) -> bool:
        return self.plan(x, mask).apply_factors

    def apply_factors(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | None:
        up, down = self._masked(mask)
        hidden = self._dropped(x, mask) @ down.to(x.dtype).T
        y.addmm_(hidden, up.to(x.dtype).T, alpha=self.scale)
        return None if self.plan(x, mask).dense or not self.trained[0] else hidden

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        up, down = self._masked(mask)
        torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        return self.plan(x, mask).chain_back

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, kept: Tensor | None
    ) -> VectorJacobianProduct:
        up, down = self._masked(mask)
        if out is not None:
            torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            cast = up.to(x.dtype), down.to(x.dtype)
            grad_up, grad_down = self._pull(cast, mask, kept, (gradient, x, grad_x))
            if grad_down is not None and mask is not None and not _of_entries(mask):
                grad_down *= mask
            return self.pull_back(grad_up, grad_down) if any(self.trained) else ()

        return vjp

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        """Gradients of the trainable parameters from those (k, out), (k, in) of the factors where they are `trained`.

        They may be overwritten.
        """
        detached_parameters = self.detached_parameters()
        with torch.enable_grad():
            up, down = self.with_parameters(detached_parameters).factors()
            pairs = [(factor, gradient) for factor, gradient in ((up.T, grad_up), (down, grad_down))]
        factors, gradients = zip(*[pair for pair in pairs if pair[1] is not None], strict=True)
        return torch.autograd.grad(factors, list(detached_parameters.values()), gradients, allow_unused=True)

    def _pull(
        self, factors: tuple[Tensor, Tensor], mask: Tensor | None, kept: Tensor | None, ends: Ends
    ) -> tuple[Tensor | None, Tensor | None]:
        """dL/dupᵀ (k, out) and dL/ddown (k, in), where trained; the rest as in `VectorJacobianProduct`.

        With ΔW = up down, G = dL/dy (tokens, out) and s the scale: dL/dupᵀ = s (x downᵀ)ᵀ G, dL/ddown = s (G up)ᵀ x, or
        both through the dense Gᵀ x (out, in) where that takes fewer operations; dL/dx gets s G up down.
        """
        (up, down), (gradient, x, grad_x), (trains_up, trains_down) = factors, ends, self.trained
        dense = self.plan(x, mask).dense
        needs_hidden = grad_x is not None or (trains_down and not dense)
        hidden = gradient @ up if needs_hidden else gradient  # (tokens, k)
        if grad_x is not None and not _of_entries(mask):
            grad_x.addmm_(hidden, down, alpha=self.scale)
        elif grad_x is not None:
            grad_x.add_(self._dropped(hidden @ down, mask), alpha=self.scale)
        grad_up = grad_down = None
        if dense:
            weight = torch.mm(gradient.T, x, out=scratch("matrix", (up.shape[0], down.shape[1]), x, x.dtype))
            grad_up = down @ weight.T if trains_up else None
            grad_down = up.T @ weight if trains_down else None
        else:
            if trains_up:
                grad_up = (x @ down.T if kept is None else kept).T @ gradient
            if trains_down:
                grad_down = hidden.T @ self._dropped(x, mask)
        return self._scaled(grad_up), self._scaled(grad_down)

    def _scaled(self, gradient: Tensor | None) -> Tensor | None:
        return None if gradient is None else gradient.to(self.dtype).mul_(self.scale)

    def _masked(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        up, down = self.factors()
        return (up, down) if mask is None or _of_entries(mask) else (up, down * mask)

    def _dropped(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None or mask.dim() == 1 else (x * mask).mul_(1 / (1 - self.dropout))


def _of_entries(mask: Tensor | None) -> bool:
    """Whether the mask is one of the input's entries (tokens, in), with which no update of the weight agrees."""
    return mask is not None and mask.dim() == 2
