"""Targets with a prescribed spectrum: power laws, flat spectra, sums of rank-one terms."""

import torch
from torch import Tensor

from kravl.approximation.target import Shape, Target, normal, positive
from kravl.runtime.errors import InputError, unknown


class PowerLaw(Target):
    """Singular values i^-``exponent``; singular vectors random or those of the coordinate axes.

    Exponent 0 is the flat spectrum. With ``vectors`` "aligned" the matrix is diagonal.

    Raises:
        InputError: a negative exponent, or ``vectors`` is neither "random" nor "aligned".
    """

    def __init__(self, exponent: float, vectors: str = "random") -> None:
        if exponent < 0:
            raise InputError(f"exponent must be at least 0, not {exponent}")
        if vectors not in ("random", "aligned"):
            raise unknown("vectors", vectors, ("random", "aligned"))
        self.exponent, self.vectors = exponent, vectors

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        values = torch.arange(1, min(shape) + 1, dtype=torch.float64) ** -self.exponent
        if self.vectors == "aligned":
            result = torch.zeros(shape, dtype=torch.float64)
            result.diagonal().copy_(values)
            return result
        u, _, vh = torch.linalg.svd(normal(shape, generator), full_matrices=False)
        return (u * values) @ vh


class RankOneTerms(Target):
    """A sum of ``terms`` outer products of normal vectors of unit expected entry, plus noise of level ``noise``.

    Raises:
        InputError: ``terms`` is no whole number from 1 up, or ``noise`` is negative.
    """

    def __init__(self, terms: int, noise: float = 0.0) -> None:
        self.terms = positive("terms", terms)
        if noise < 0:
            raise InputError(f"noise must be at least 0, not {noise}")
        self.noise = noise

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        left, right = normal((shape[0], self.terms), generator), normal((self.terms, shape[1]), generator)
        result = left @ right / self.terms**0.5
        return result + self.noise * normal(shape, generator) if self.noise else result
