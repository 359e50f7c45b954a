"""Spectral diagnostics of weight updates."""

import torch
from torch import Tensor


def effective_rank(matrix: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, EUSIPCO 2007); 0 for a zero matrix.

    Examples:
        >>> import torch
        >>> from kravl import effective_rank
        >>> round(effective_rank(torch.eye(4)), 6)
        4.0
        >>> round(effective_rank(torch.ones(4, 4)), 6)
        1.0
    """
    return spectrum(matrix)["effective_rank"]


def stable_rank(matrix: Tensor) -> float:
    """Squared Frobenius over squared spectral norm (Rudelson & Vershynin, JACM 2007); 0 for a zero matrix."""
    return spectrum(matrix)["stable_rank"]


def spectrum(matrix: Tensor) -> dict[str, float]:
    """The `ranks_and_norms` of a matrix (out, in), in double precision.

    The squared singular values are the eigenvalues of the smaller Gram matrix, six times faster than a singular value
    decomposition. Those below 1e-8 of the largest are lost in rounding, which moves the ranks by less than 1e-4.
    """
    return ranks_and_norms(gram_singular_values(matrix))


def ranks_and_norms(values: Tensor) -> dict[str, float]:
    """Both ranks, the Frobenius ``norm`` and the ``spectral_norm`` of a matrix with singular ``values``, any order."""
    values = values.detach().double()
    largest = values.max()
    if largest == 0.0:
        return {"effective_rank": 0.0, "stable_rank": 0.0, "norm": 0.0, "spectral_norm": 0.0}
    scaled = values / largest  # squares of tiny updates would underflow
    power = scaled.square().sum()
    return {
        "effective_rank": torch.special.entr(scaled / scaled.sum()).sum().exp().item(),
        "stable_rank": power.item(),
        "norm": (largest * power.sqrt()).item(),
        "spectral_norm": largest.item(),
    }


def gram_singular_values(matrix: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Singular values of a matrix (out, in), largest first, from its smaller Gram matrix.

    Single precision is twice as fast but loses those below 3e-4 of the largest, which raised the effective rank of a
    LoRA of rank 16 by 3 % and changed that of KRAdapter by less than 0.1 % (768 x 3072).
    """
    a = matrix.detach().to(dtype)
    largest = a.abs().max()
    if largest == 0.0:
        return a.new_zeros(min(a.shape))
    a = (a if a.shape[0] <= a.shape[1] else a.T) / largest
    return largest * torch.linalg.eigvalsh(a @ a.T).clamp_(min=0.0).sqrt().flip(0)
