"""Updates that transform the input before the weight does: W' = W (I + E)."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from kravl.adapters.base import Adapter, VectorJacobianProduct
from kravl.runtime.errors import InputError

Factors = tuple[Tensor, ...]


class InputTransform(Adapter):
    """The adapted weight is W (I + E), with E (in, in) of few numbers: rotations and reflections of the input.

    With G = dL/dy and P = G W (tokens, in), dL/dx = P (I + E) and dL/dE = Pᵀ x, so that one product of the whole width
    serves both, and the dense Gᵀ x is never made.

    Raises:
        InputError: when attached, there is one input, which no rotation changes.
    """

    @abstractmethod
    def factors(self) -> Factors:
        """The small matrices that E consists of, differentiable in the parameters."""

    @abstractmethod
    def times(self, rows: Tensor, factors: Factors) -> Tensor:
        """``rows`` (n, in) times E, (n, in)."""

    @abstractmethod
    def factor_gradients(self, left: Tensor, right: Tensor, factors: Factors) -> Factors:
        """Gradients of ``factors`` where that of E is leftᵀ right, both (tokens, in)."""

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        if self.in_features == 1:
            raise InputError(
                f"{type(self).__name__} rotates the input of a matrix, and one of {self.out_features} x 1 has a single "
                "input: leave it out of the sites"
            )

    def delta_weight(self) -> Tensor:
        """The update of a weight with ones on its diagonal, whose entries are those of E."""
        one = next(self.parameters())
        return self.times(
            torch.eye(self.out_features, self.in_features, dtype=one.dtype, device=one.device), self.factors()
        )

    def update(self, weight: Tensor) -> Tensor:
        return self.scale * self.times(weight.to(self.dtype), self.factors())

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        return mask is None

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        if mask is not None:
            return super().recompute(weight, mask, out, hidden)
        leaves = self.detached_parameters()
        with torch.enable_grad():
            factors = self.with_parameters(leaves).factors()
        used = tuple(factor.detach() for factor in factors)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            # where this adapter has all rows of the weight, dL/dx so far is the product with it
            is_product = grad_x is not None and gradient.stride() == (gradient.shape[1], 1)
            through = grad_x if is_product and grad_x is not None else gradient @ weight.to(gradient.dtype)
            in_type = tuple(factor.to(x.dtype) for factor in used)
            towards = self.factor_gradients(through, x, in_type) if leaves else ()
            if grad_x is not None:
                grad_x.add_(self.times(through, in_type), alpha=self.scale)
            if not leaves:
                return ()
            grads = [gradient.to(self.dtype).mul_(self.scale) for gradient in towards]
            return torch.autograd.grad(factors, list(leaves.values()), grads, allow_unused=True)

        return vjp
