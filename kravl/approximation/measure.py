"""How near an approximation is to its target: as a matrix, in its spectrum, in its directions."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kravl.adapters.rank import summary

TOP = 16  # singular directions whose overlap is taken
POINTS = 64  # singular values that are kept of a spectrum, at equal steps of its length


@dataclass(frozen=True)
class Decomposed:
    """A matrix (out, in) in double precision with its singular value decomposition, made once."""

    matrix: Tensor

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(self.matrix, full_matrices=False)
        return u, s, vh

    @property
    def values(self) -> Tensor:
        """Singular values, largest first."""
        return self.svd[1]

    def describe(self) -> dict[str, float]:
        """Effective and stable rank and the nuclear norm."""
        ranks = summary(self.values)
        wanted = {name: ranks[name] for name in ("effective_rank", "stable_rank")}
        return wanted | {"nuclear_norm": self.values.sum().item()}

    def points(self) -> list[float]:
        """Up to POINTS of the singular values, the first and the last among them, four digits each."""
        at = torch.linspace(0, len(self.values) - 1, min(POINTS, len(self.values)), dtype=torch.float64)
        return [float(f"{value:.3e}") for value in self.values[at.round().long()].tolist()]


def measure(found: Decomposed, target: Decomposed) -> dict[str, float]:
    """Errors of ``found`` relative to ``target``; 0 is the target itself, 1 as far as the zero matrix.

    ``frobenius_error`` and ``spectral_error`` are relative norms of the difference. ``singular_value_error`` is the
    mean absolute difference of the sorted singular values, which the released script calls nuclear error: it does not
    see directions, so that any matrix with the right spectrum has none. ``overlap`` is the mean squared cosine between
    the spaces of the TOP first singular vectors, of both sides; 1 is the same space.
    """
    difference = found.matrix - target.matrix
    return {
        "frobenius_error": frobenius_error(found.matrix, target.matrix),
        "spectral_error": (torch.linalg.matrix_norm(difference, 2) / target.values[0]).item(),
        "singular_value_error": (found.values - target.values).abs().mean().item(),
        "overlap": _overlap(found, target),
        **found.describe(),
        **{f"target_{name}": value for name, value in target.describe().items()},
    }


def frobenius_error(found: Tensor, target: Tensor) -> float:
    """‖found - target‖ / ‖target‖."""
    return (torch.linalg.matrix_norm(found - target) / torch.linalg.matrix_norm(target)).item()


def _overlap(found: Decomposed, target: Decomposed) -> float:
    top = min(TOP, len(target.values))
    (u, _, vh), (u0, _, vh0) = found.svd, target.svd
    left = (u[:, :top].T @ u0[:, :top]).square().sum() / top
    right = (vh[:top] @ vh0[:top].T).square().sum() / top
    return (0.5 * (left + right)).item()
