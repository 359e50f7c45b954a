"""The adapter contract: a trainable update ΔW for one frozen weight matrix W of shape (out, in)."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters.budget import Sizes
from kravl.runtime.errors import InputError

M = TypeVar("M", bound=nn.Module)
# (dL/dy (tokens, out), x (tokens, in), dL/dx (tokens, in) or None) -> dL/dp of each trainable parameter p, in order.
# To dL/dx, where it is given, it adds the update's share, scale * dL/dy @ ΔW.
VectorJacobianProduct = Callable[[Tensor, Tensor, Tensor | None], Sequence[Tensor | None]]
# dL/dΔW (out, in), as if scale were 1 and nothing dropped -> dL/dp of each trainable parameter p, in order
UpdateGradients = Callable[[Tensor], Sequence[Tensor | None]]


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context with autocast off, entered only where it is on: entering takes longer than a small product."""
    on = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if on else nullcontext()


def named(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    """As ``named_parameters``, ten times as fast; a shared parameter comes under each of its names."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, child in module._modules.items():
        if child is not None:
            yield from named(child, f"{prefix}{name}.")


def with_parameters(module: M, parameters: Mapping[str, Tensor], prefix: str) -> M:
    """A shallow copy of ``module`` in which ``parameters`` replace those of the same names; the rest is shared."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    current, children = module._parameters, module._modules
    twin._parameters = {n: parameters.get(prefix + n, current[n]) for n in current}  # type: ignore[misc]
    twin._modules = {n: child and with_parameters(child, parameters, f"{prefix}{n}.") for n, child in children.items()}
    return twin


def check_rank(rank: int) -> None:
    """Raises InputError unless ``rank`` is a positive whole number."""
    if not isinstance(rank, int) or rank < 1:
        raise InputError(f"rank must be a whole number of at least 1, not {rank!r}")


class Adapter(nn.Module, ABC):
    """Update of one frozen weight matrix: the adapted weight is ``W + scale * delta_weight()``.

    A subclass creates its parameters in ``__init__`` and returns the dense update from ``delta_weight``; injection,
    merging, checkpoints and rank diagnostics follow from this contract. The initial update is exactly zero: adaptation
    starts at the pretrained model. Each hyper-parameter of ``__init__`` is an attribute of the same name.

    ``scale`` multiplies the update (alpha / rank in LoRA's notation). ``dropout`` is the fraction of columns of ΔW that
    a forward pass in training drops; the others are divided by 1 - dropout.

    Raises:
        InputError: ``dropout`` is not in [0, 1).
    """

    # parameter -> whether weight decay applies, where that is not the rule for all models: to matrices, not to vectors
    decays: ClassVar[Mapping[str, bool]] = {}

    def __init__(self, out_features: int, in_features: int, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout must be a fraction in [0, 1), not {dropout}")
        self.out_features, self.in_features, self.scale, self.dropout = out_features, in_features, scale, dropout

    @abstractmethod
    def delta_weight(self) -> Tensor:
        """The unscaled update, shape (out_features, in_features), differentiable in the parameters."""

    def legal_sizes(self) -> Sizes | None:
        """What the hyper-parameter that sets the number of parameters may be for this shape; None if there is none."""
        return None

    def delta_columns(self, index: Tensor) -> Tensor:
        """Columns of the unscaled update: its entry (..., :) is ΔW[:, index[...]], shape (..., out_features).

        What an embedding adds for the tokens ``index``; overridden by methods that need not build ΔW for it.
        """
        return F.embedding(index, self.delta_weight().T)

    def attach(self, weight: Tensor) -> None:
        """Called once with the pretrained matrix (out, in), for methods whose initialisation depends on it."""
        assert weight.shape == (self.out_features, self.in_features), (weight.shape, self)

    def update(self, weight: Tensor) -> Tensor:
        """Adapted minus pretrained matrix, (out, in); overridden by methods that are not additive."""
        return self.scale * self.delta_weight()

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """The update of ``weight`` (out, in), its columns multiplied by ``mask`` (in,) from `draw_mask`."""
        update = self.update(weight)
        return update if mask is None else update * mask

    def draw_mask(self, x: Tensor | None = None) -> Tensor | None:
        """A new dropout mask (in,) of zeros and 1 / (1 - dropout) for the columns of ΔW; None if nothing is dropped.

        Overridden by methods that drop entries of their input ``x``, (tokens, in) or the map (b, channels, ...) of a
        convolution: their mask is (entries / x.shape[-1], x.shape[-1]).
        """
        if not self.training or self.dropout == 0.0:
            return None
        reference = next(self.parameters())
        keep = torch.full((self.in_features,), 1.0 - self.dropout, dtype=reference.dtype, device=reference.device)
        return torch.bernoulli(keep) / keep

    def adapted(self, weight: Tensor, alpha: float) -> Tensor:
        """The matrix ``weight`` + alpha * ΔW, without gradient; for alpha 1 bit for bit what `add_to` writes."""
        with without_autocast(weight.device.type):
            if alpha != 1.0:
                return weight + alpha * self.update(weight)
            out = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, self.dtype))
            self.add_to(weight, None, out)
            return out

    def applies_factors(self, x: Tensor, mask: Tensor | None) -> bool:
        """Whether `apply_factors` multiplies ``x`` (tokens, in) by the update; else it is added to the weight."""
        return False

    def apply_factors(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | None:
        """Add ``x`` (tokens, in) times the update to ``y`` (tokens, out); returns ``hidden`` of `recompute`."""
        raise NotImplementedError(f"{type(self).__name__} has an update that is added to the weight")

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        """Write the adapted ``weight`` (out, in) to ``out``, without gradient."""
        torch.add(weight, self(weight, mask), out=out)

    def applies_factors_backward(self, x: Tensor, mask: Tensor | None) -> bool:
        """As `applies_factors`, for the gradient of the input."""
        return False

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        """Recompute the update for the backward pass; W + scale * ΔW is written to ``out`` (out, in), where given.

        ``hidden`` is what `apply_factors` returned. The function returned computes the gradients: with G = dL/dy
        (tokens, out) and x (tokens, in), dL/dΔW = scale * Gᵀ x, pulled back through `delta_weight` to the parameters.
        """
        from_update = self.recompute_update(weight, mask, out)
        trains = any(parameter.requires_grad for _, parameter in named(self, ""))
        return lambda gradient, x, grad_x: from_update(gradient.T @ x) if trains else ()

    def recompute_update(self, weight: Tensor, mask: Tensor | None, out: Tensor | None) -> UpdateGradients:
        """As `recompute`, for who has G x summed over all tokens already, as a convolution does.

        The function returned takes the gradient of the adapted weight, Gᵀ x (out, in), and may overwrite it.
        """
        detached_parameters = self.detached_parameters()
        with torch.enable_grad():
            update = self.with_parameters(detached_parameters)(weight, mask)
        if out is not None:
            torch.add(weight, update.detach(), out=out)

        def from_update(grad_update: Tensor) -> Sequence[Tensor | None]:
            gradient, parameters = grad_update.to(update.dtype), list(detached_parameters.values())
            return torch.autograd.grad(update, parameters, gradient, allow_unused=True) if parameters else ()

        return from_update

    def trainable(self) -> dict[str, Tensor]:
        """The trainable parameters by name."""
        return {name: parameter for name, parameter in named(self, "") if parameter.requires_grad}

    def detached_parameters(self) -> dict[str, Tensor]:
        """The trainable parameters as leaves of a new autograd graph."""
        return {name: parameter.detach().requires_grad_() for name, parameter in self.trainable().items()}

    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        """A shallow copy in which ``parameters`` replace those of the same names; the rest is shared."""
        return with_parameters(self, parameters, "")

    def hyperparameters(self) -> dict[str, int | float | str | bool]:
        """The arguments of ``__init__`` after the two sizes."""
        names = [n for n in inspect.signature(type(self)).parameters if n not in ("out_features", "in_features")]
        return {name: getattr(self, name) for name in names}

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)"""
        return self.out_features, self.in_features

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(parameter.dtype for _, parameter in named(self, ""))

    def extra_repr(self) -> str:
        return f"{self.out_features}x{self.in_features}, scale={self.scale:g}"
