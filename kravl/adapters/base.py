"""The adapter contract: a trainable update ΔW for one frozen weight matrix W of shape (out, in)."""

import inspect
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from kravl.errors import InputError


def check_rank(rank: int) -> None:
    """Raises InputError unless ``rank`` is a positive whole number."""
    if not isinstance(rank, int) or rank < 1:
        raise InputError(f"rank must be a whole number of at least 1, not {rank!r}")


class Adapter(nn.Module, ABC):
    """Update of one frozen weight matrix: the adapted weight is ``W + scale * delta_weight()``.

    A subclass creates its parameters in ``__init__`` and returns the dense update from ``delta_weight``; injection,
    merging, checkpoints and rank diagnostics come from this contract. At initialisation the update is exactly zero, so
    adaptation starts at the pretrained model. Each hyper-parameter of ``__init__`` is kept under its own name.

    ``scale`` multiplies the update (alpha / rank in LoRA's notation). ``dropout`` is the fraction of columns of ΔW that
    a training forward leaves out; the others are divided by 1 - dropout.

    Raises:
        InputError: ``dropout`` is not in [0, 1).
    """

    def __init__(self, out_features: int, in_features: int, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout must be a fraction in [0, 1), not {dropout}")
        self.out_features, self.in_features, self.scale, self.dropout = out_features, in_features, scale, dropout

    @abstractmethod
    def delta_weight(self) -> Tensor:
        """The unscaled update, shape (out_features, in_features), differentiable in the parameters."""

    def attach(self, weight: Tensor) -> None:
        """Called once with the pretrained matrix (out, in), for methods that start from its values."""
        assert weight.shape == (self.out_features, self.in_features), (weight.shape, self)

    def update(self, weight: Tensor) -> Tensor:
        """Adapted minus pretrained matrix, (out, in); a method that is not additive overrides it."""
        return self.scale * self.delta_weight()

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """The update of ``weight`` (out, in), its columns multiplied by ``mask`` (in,) from `column_mask`."""
        update = self.update(weight)
        return update if mask is None else update * mask

    def column_mask(self) -> Tensor | None:
        """A new dropout mask (in,) of zeros and 1 / (1 - dropout); None where nothing is dropped."""
        if not self.training or self.dropout == 0.0:
            return None
        reference = next(self.parameters())
        keep = torch.full((self.in_features,), 1.0 - self.dropout, dtype=reference.dtype, device=reference.device)
        return torch.bernoulli(keep) / keep

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """For low-rank methods, the update's product with ``x`` (..., in) as hidden (..., r) and up (out, r) factors.

        They are multiplied and added after the layer's own product. None, the default, adds the update to the weight
        before it, so that there is no other product.
        """
        return None

    def hyperparameters(self) -> dict[str, int | float | str | bool]:
        """The arguments of ``__init__`` after the two sizes."""
        names = [n for n in inspect.signature(type(self)).parameters if n not in ("out_features", "in_features")]
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        return f"{self.out_features}x{self.in_features}, scale={self.scale:g}"
