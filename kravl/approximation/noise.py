"""Targets of the paper's toy experiment that are noise: Gaussian, sparse, PCA-whitened, low rank."""

import torch
from torch import Tensor

from kravl.approximation.target import Shape, Target, normal, share


class Gaussian(Target):
    """Independent standard normal entries."""

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        return normal(shape, generator)


class Sparse(Target):
    """Normal entries of which a share ``density`` is kept and divided by it, the others are zero.

    Raises:
        InputError: ``density`` is not in (0, 1].
    """

    def __init__(self, density: float) -> None:
        self.density = share("density", density)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        kept = torch.rand(shape, generator=generator, dtype=torch.float64) < self.density
        return normal(shape, generator) * kept / self.density


class Whitened(Target):
    """Rows of noise, centred, turned to their principal axes and scaled to unit variance along each."""

    EPSILON = 1e-5  # added to each variance, as the released script does; a wide matrix has axes without any

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
        self.fraction = share("fraction", fraction)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        u, s, vh = torch.linalg.svd(normal(shape, generator), full_matrices=False)
        kept = max(1, int(len(s) * self.fraction))
        return (u[:, :kept] * s[:kept]) @ vh[:kept]
