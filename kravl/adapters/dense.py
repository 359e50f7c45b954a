"""Updates that are written into the weight, with gradients written out: nothing dense is kept, or made twice."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from kravl.adapters.base import Adapter, UpdateGradients, VectorJacobianProduct
from kravl.adapters.workspace import cast, scratch

A = TypeVar("A", bound=Adapter)
ROWS = 64  # of a matrix that are made at a time on a CPU: they stay in its cache


class DenseAdapter(Adapter):
    """An update without a cheaper product than that of the adapted weight; it costs three products, as full tuning.

    A subclass defines what autograd would find for `delta_weight`, in place: `write` and `gradients`. They are not used
    where columns are dropped.
    """

    @abstractmethod
    def write(self, weight: Tensor, out: Tensor) -> None:
        """Write the adapted ``weight`` (out, in) to ``out``, which is contiguous; exactly ``weight`` if ΔW is zero."""

    @abstractmethod
    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        """dL/dp of each trainable parameter by name from dL/d(scale * ΔW) = ``grad_update`` (out, in).

        ``grad_update`` may be overwritten.
        """

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        if mask is None and out.is_contiguous():
            self.write(weight, out)
        else:
            super().add_to(weight, mask, out)

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        if mask is not None:
            return super().recompute(weight, mask, out, hidden)
        if out is not None:
            self.add_to(weight, mask, out)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            names = list(self.trainable())
            by_name = self.pull(weight, gradient, x) if names else {}
            return [by_name[name] for name in names]

        return vjp

    def recompute_update(self, weight: Tensor, mask: Tensor | None, out: Tensor | None) -> UpdateGradients:
        if mask is not None:
            return super().recompute_update(weight, mask, out)
        if out is not None:
            self.add_to(weight, mask, out)

        def from_update(grad_update: Tensor) -> Sequence[Tensor | None]:
            names = list(self.trainable())
            gradient = cast(grad_update, self.dtype).contiguous()
            by_name = self.gradients(weight, gradient) if names else {}
            return [by_name[name] for name in names]

        return from_update

    def pull(self, weight: Tensor, gradient: Tensor, x: Tensor) -> Mapping[str, Tensor]:
        """`gradients` from G = ``gradient`` (tokens, out) and ``x`` (tokens, in), whose Gᵀ x is that of the update."""
        shape = (gradient.shape[1], x.shape[1])
        grad_update = torch.mm(gradient.T, x, out=scratch("matrix", shape, x, x.dtype))
        return self.gradients(weight, cast(grad_update, self.dtype))


def pull_through(adapter: A, function: Callable[[A], Tensor], gradient: Tensor) -> dict[str, Tensor]:
    """dL/dp of each trainable parameter by name, where ``gradient`` is that of ``function`` of the adapter."""
    leaves = adapter.detached_parameters()
    with torch.enable_grad():
        value = function(adapter.with_parameters(leaves))
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()), gradient), strict=True))


def row_chunks(matrix: Tensor) -> list[slice]:
    """Slices of the rows of ``matrix`` that are worked on at a time: ROWS on a CPU, all on a device of many cores."""
    rows = ROWS if matrix.device.type == "cpu" else max(1, len(matrix))
    return [slice(start, start + rows) for start in range(0, len(matrix), rows)]


@lru_cache(maxsize=64)
def random_positions(entries: int, number: int, seed: int) -> Tensor:
    """``number`` different whole numbers below ``entries``, ascending: shared by all matrices of one size."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randperm(entries, generator=generator, device="cpu")[:number].sort().values
