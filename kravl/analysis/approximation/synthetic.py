"""Synthetic target matrices: noise, given spectra, structure and waves."""

import math

import torch
from torch import Tensor

from kravl.analysis.approximation.target import Shape, Target, normal, require_fraction, require_positive
from kravl.runtime.errors import InputError, unknown


class Gaussian(Target):
    """Independent standard normal entries."""

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        return normal(shape, generator)


class Sparse(Target):
    """Normal entries, of which a fraction ``density`` is divided by ``density`` and the others are zero.

    Raises:
        InputError: ``density`` is not in (0, 1].
    """

    def __init__(self, density: float) -> None:
        self.density = require_fraction("density", density)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        mask = torch.rand(shape, generator=generator, dtype=torch.float64) < self.density
        return normal(shape, generator) * mask / self.density


class Whitened(Target):
    """Rows of noise, centred, rotated to their principal axes and scaled to unit variance along each."""

    EPSILON = 1e-5  # added to each variance, as the released script does; a wide matrix has axes of no variance

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        rows = normal(shape, generator)
        centred = rows - rows.mean(0)
        variances, axes = torch.linalg.eigh(centred.T @ centred / (shape[0] - 1))
        return centred @ axes / (variances.clamp(min=0.0) + self.EPSILON).sqrt()


class LowRank(Target):
    """Noise with only the first ``fraction`` of its singular values.

    Raises:
        InputError: ``fraction`` is not in (0, 1].
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = require_fraction("fraction", fraction)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        u, s, vh = torch.linalg.svd(normal(shape, generator), full_matrices=False)
        rank = max(1, int(len(s) * self.fraction))
        return (u[:, :rank] * s[:rank]) @ vh[:rank]


class PowerLaw(Target):
    """Singular values i^-``exponent``; singular vectors are random or the coordinate axes.

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
    """A sum of ``terms`` outer products of normal vectors, entries of unit variance, plus noise of level ``noise``.

    Raises:
        InputError: ``terms`` is not a positive integer, or ``noise`` is negative.
    """

    def __init__(self, terms: int, noise: float = 0.0) -> None:
        self.terms = require_positive("terms", terms)
        if noise < 0:
            raise InputError(f"noise must be at least 0, not {noise}")
        self.noise = noise

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        left, right = normal((shape[0], self.terms), generator), normal((self.terms, shape[1]), generator)
        result = left @ right / self.terms**0.5
        return result + self.noise * normal(shape, generator) if self.noise else result


class BlockDiagonal(Target):
    """``blocks`` equal blocks of noise on the diagonal (as equal as the sides allow), zeros elsewhere.

    Raises:
        InputError: ``blocks`` is not a positive integer; when drawn, a side is shorter than that.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = require_positive("blocks", blocks)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        if self.blocks > min(shape):
            raise InputError(f"{self.blocks} blocks do not fit a matrix of {shape[0]} x {shape[1]}")
        blocks = [torch.arange(side) * self.blocks // side for side in shape]
        return normal(shape, generator) * (blocks[0].unsqueeze(1) == blocks[1])


class Kronecker(Target):
    """A ⊗ B of normal factors, A with ``factor`` rows and columns, cut to the shape.

    Raises:
        InputError: ``factor`` is not a positive integer.
    """

    def __init__(self, factor: int) -> None:
        self.factor = require_positive("factor", factor)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        inner = (-(-shape[0] // self.factor), -(-shape[1] // self.factor))
        product = torch.kron(normal((self.factor, self.factor), generator), normal(inner, generator))
        return product[: shape[0], : shape[1]]


class Sinusoids(Target):
    """Row i is sin(2 π f_i t + φ), t in [0, 1), plus 0 to ``harmonics`` sinusoids of random frequencies in the range.

    f_i goes from ``low`` to ``high`` in equal steps, φ is uniform in [0, 1); frequencies above half the number of
    columns alias, as in the released script.

    Raises:
        InputError: ``low`` is not below ``high``, or ``harmonics`` is negative.
    """

    def __init__(self, low: float, high: float, harmonics: int = 5) -> None:
        if not 0 < low < high or harmonics < 0:
            raise InputError(f"low={low}, high={high}, harmonics={harmonics}: need 0 < low < high and harmonics >= 0")
        self.low, self.high, self.harmonics = low, high, harmonics

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        rows, columns = shape
        time = 2 * math.pi * torch.arange(columns, dtype=torch.float64) / columns
        phases = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        result = torch.sin(torch.linspace(self.low, self.high, rows, dtype=torch.float64).unsqueeze(1) * time + phases)
        counts = torch.randint(0, self.harmonics + 1, (rows, 1), generator=generator)
        for i in range(self.harmonics):
            frequencies = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * (self.high - self.low)
            result += torch.sin((frequencies + self.low) * time) * (counts > i)
        return result
