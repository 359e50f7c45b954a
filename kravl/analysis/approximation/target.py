"""Targets: matrices of known structure that adapters are to approximate."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from kravl.runtime.errors import InputError

Shape = tuple[int, int]  # (out, in)


class Target(ABC):
    """A family of matrices; each hyper-parameter of ``__init__`` is a setting of its file in configs/target.

    ``source`` is the file that the matrix is read from, if any: if its contents change, fits are repeated.
    """

    source: Path | None = None

    @abstractmethod
    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """One matrix of ``shape`` in double precision, all randomness from ``generator``.

        Raises:
            InputError: it cannot have this shape, or its file does not match the settings.
        """


def draw_matrix(name: str, target: Target, shape: Shape, seed: int) -> Tensor:
    """The matrix (out, in) of ``seed``; refuses what every method would fail on.

    Raises:
        InputError: a side of 1, where every matrix has rank one, or a matrix with NaN, infinity or only zeros.
    """
    if min(shape) < 2:
        raise InputError(f"shape {shape[0]} x {shape[1]}: both sides must be at least 2; a row has no spectrum")
    matrix = target.matrix(shape, torch.Generator().manual_seed(seed)).double()
    assert matrix.shape == shape, (name, matrix.shape)
    if not matrix.isfinite().all():
        raise InputError(f"target {name} holds {int((~matrix.isfinite()).sum())} values that are not finite")
    if matrix.count_nonzero() == 0:
        raise InputError(f"target {name} is all zeros: every adapter starts there, and errors relative to it are 0 / 0")
    return matrix


def normal(shape: Shape, generator: torch.Generator) -> Tensor:
    """Independent standard normal entries."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def require_fraction(name: str, value: float) -> float:
    """``value``. Raises InputError unless it is in (0, 1]."""
    if not 0.0 < value <= 1.0:
        raise InputError(f"{name} must be a fraction in (0, 1], not {value}")
    return value


def require_positive(name: str, value: int) -> int:
    """``value``. Raises InputError unless it is a positive integer."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value
