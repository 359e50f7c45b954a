"""The best possible fit: closed forms, and local optima where there is none."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.nn import functional as F

from kravl.adapters.base import Adapter
from kravl.adapters.bat import Bat
from kravl.adapters.c3a import C3A
from kravl.adapters.delora import DeLoRA
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.full import Full
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.kra import KRAdapter
from kravl.adapters.krona import KronA
from kravl.adapters.lokr import LoKr
from kravl.adapters.lora import LoRA
from kravl.adapters.miss import MiSS
from kravl.adapters.pissa import PiSSA
from kravl.adapters.shira import SHiRA
from kravl.adapters.waveft import WaveFT, haar

ROUNDS = 200  # of alternating least squares at most, where entries are cut; none raises the error
SETTLED = 1e-6  # relative change of a factor
TINY = 1e-300  # keeps rows of zeros zero
TINY_SHARE = 1e-10  # of a Gram matrix's diagonal, added to it


@singledispatch
def optimum(adapter: Adapter, target: Tensor, weight: Tensor) -> Tensor | None:
    """The update of this method and size that is nearest to ``target`` (out, in) in Frobenius norm; None if unknown.

    ``weight`` (out, in) is the pretrained matrix, for the methods whose updates depend on it. A method without a closed
    form registers none.
    """
    return None


@optimum.register
def _(adapter: Full, target: Tensor, weight: Tensor) -> Tensor | None:
    return target


@optimum.register
def _(adapter: LoRA, target: Tensor, weight: Tensor) -> Tensor | None:
    return truncated(target, adapter.rank)


@optimum.register
def _(adapter: DeLoRA, target: Tensor, weight: Tensor) -> Tensor | None:
    """As LoRA's: any matrix of rank r is a sum of r terms of equal norm (Schur and Horn), and its bound is trained."""
    return truncated(target, adapter.inner)


@optimum.register
def _(adapter: PiSSA, target: Tensor, weight: Tensor) -> Tensor | None:
    """What takes the place of the leading part of the weight is any matrix of rank r."""
    start = truncated(weight, len(adapter.a))
    return truncated(target + start, len(adapter.a)) - start


@optimum.register
def _(adapter: GraLoRA, target: Tensor, weight: Tensor) -> Tensor | None:
    """Each block has its own."""
    k, r, _ = adapter.a.shape
    blocks = target.view(k, adapter.out_features // k, k, -1).transpose(1, 2)
    return truncated(blocks, r // k).transpose(1, 2).reshape(target.shape)


@optimum.register
def _(adapter: SHiRA, target: Tensor, weight: Tensor) -> Tensor | None:
    """The target's own values at the positions that train."""
    kept = torch.zeros_like(target).flatten()
    kept[adapter.positions] = target.flatten()[adapter.positions]
    return kept.view_as(target)


@optimum.register
def _(adapter: C3A, target: Tensor, weight: Tensor) -> Tensor | None:
    """Projection: the mean of each wrapped diagonal of each block."""
    rows, columns, b = adapter.kernel.shape
    steps = torch.arange(b, device=target.device)
    place = ((steps - steps.unsqueeze(1)) % b).flatten()  # of entry (i, k) of a block in its kernel
    blocks = target.view(rows, b, columns, b).transpose(1, 2).reshape(rows * columns, b * b)
    kernels = torch.zeros_like(blocks[:, :b]).index_add(1, place, blocks) / b
    return kernels[:, place].view(rows, columns, b, b).transpose(1, 2).reshape(target.shape)


@optimum.register
def _(adapter: FourierFT, target: Tensor, weight: Tensor) -> Tensor | None:
    """Projection on the cosines that train; a coefficient and its mirror image have the same."""
    allowed = torch.zeros(target.shape[0], target.shape[1] // 2 + 1, dtype=torch.bool, device=target.device)
    allowed.view(-1)[adapter.places.flatten()] = True
    spectrum = torch.fft.rfft2(target).real * allowed
    return torch.fft.irfft2(torch.complex(spectrum, torch.zeros_like(spectrum)), s=tuple(target.shape))


@optimum.register
def _(adapter: WaveFT, target: Tensor, weight: Tensor) -> Tensor | None:
    """Projection on the wavelets that train; unknown where an odd side cuts some, which are then not orthogonal."""
    if adapter.even != tuple(target.shape):
        return None
    allowed = torch.zeros(target.numel(), dtype=torch.bool, device=target.device)
    allowed[adapter.positions] = True
    return haar(haar(target, quadrants_first=False) * allowed.view_as(target), quadrants_first=True)


@optimum.register
def _(adapter: MiSS, target: Tensor, weight: Tensor) -> Tensor | None:
    """The mean of the columns that are the same."""
    r = adapter.d.shape[1]
    shared = torch.arange(target.shape[1], device=target.device) % r
    sums = torch.zeros_like(target[:, :r]).index_add(1, shared, target)
    return (sums / shared.bincount(minlength=r))[:, shared]


@optimum.register
def _(adapter: Bat, target: Tensor, weight: Tensor) -> Tensor | None:
    """Least squares for each row of blocks: the columns of D on those of W_block + I."""
    rows, r, _ = adapter.d.shape
    one = torch.eye(r, dtype=weight.dtype, device=weight.device)
    blocks = weight.view(rows, r, -1, r) + one.unsqueeze(1)
    factors = blocks.reshape(rows, -1, r)
    solution = torch.linalg.lstsq(factors, target.reshape(rows, -1, r)).solution
    return (factors @ solution).view_as(target)


@optimum.register
def _(adapter: HiRA, target: Tensor, weight: Tensor) -> Tensor | None:
    """Low-rank approximation of T / W with weights W²: the better of the local optima that `weighted_low_rank` finds.

    It starts from a truncated decomposition and from the adapter as it is, which a fit cannot be better than.
    """
    r = len(adapter.a)
    _, s, vh = torch.linalg.svd(weight * target / weight.square().mean(), full_matrices=False)
    starts = vh[:r].T * s[:r].sqrt(), adapter.a.detach().to(target).T
    found = [weight * weighted_low_rank(target, weight, start) for start in starts]
    return min(found, key=lambda update: torch.linalg.matrix_norm(update - target).item())


@optimum.register
def _(adapter: KRAdapter, target: Tensor, weight: Tensor) -> Tensor | None:
    """Each row along the shorter side separately: folded to (c, r) it is v uᵀ, so its optimum is of rank one.

    If r * c exceeds the longer side, the cut entries are free; see `_rank_one`.
    """
    rows = target if adapter.out_features <= adapter.in_features else target.T
    (short, long), r, c = rows.shape, adapter.u.shape[1], adapter.v.shape[1]
    folded = F.pad(rows, (0, r * c - long)).view(short, c, r)
    known = (torch.arange(r * c, device=target.device) < long).view(1, c, r)
    best = _rank_one(folded, known).reshape(short, r * c)[:, :long]
    return best if adapter.out_features <= adapter.in_features else best.T


@optimum.register
def _(adapter: KronA, target: Tensor, weight: Tensor) -> Tensor | None:
    return _nearest_kronecker(target, len(adapter.a), adapter.b)


@optimum.register
def _(adapter: LoKr, target: Tensor, weight: Tensor) -> Tensor | None:
    """Known where the second factor is a full matrix."""
    return None if adapter.rank else _nearest_kronecker(target, len(adapter.w1), adapter.w2)


def _nearest_kronecker(target: Tensor, f: int, inner: Tensor) -> Tensor:
    """The nearest A ⊗ B, with A (f, f) and B of the shape of ``inner``, cut to the target's shape.

    Blocks as rows: A ⊗ B becomes vec(A) vec(B)ᵀ (Van Loan & Pitsianis, 1993); cut entries are free.
    """
    p, q = inner.shape

    def as_rows(matrix: Tensor) -> Tensor:
        return matrix.view(f, p, f, q).transpose(1, 2).reshape(1, f * f, p * q)

    margin = (0, f * q - target.shape[1], 0, f * p - target.shape[0])
    known = as_rows(F.pad(torch.ones_like(target), margin)) > 0
    best = _rank_one(as_rows(F.pad(target, margin)), known)
    uncut = best.view(f, f, p, q).transpose(1, 2).reshape(f * p, f * q)
    return uncut[: target.shape[0], : target.shape[1]]


def truncated(matrices: Tensor, rank: int) -> Tensor:
    """Best approximation of rank ``rank`` of each of ``matrices`` (..., m, n) (Eckart & Young, Psychometrika 1936)."""
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]


def weighted_low_rank(target: Tensor, weight: Tensor, right: Tensor) -> Tensor:
    """X (m, n) with small ‖target - weight ∘ X‖, by alternating least squares from its factor ``right`` (n, r).

    There is no closed form: with weights of two sides the problem is NP-hard (Gillis & Glineur, SIMAX 2011).
    """
    squares, products = weight.square(), weight * target
    previous = torch.zeros_like(target)
    for _ in range(ROUNDS):
        left = _weighted_rows(squares, products, right)
        right = _weighted_rows(squares.T, products.T, left)
        product = left @ right.T
        if torch.linalg.matrix_norm(product - previous) <= SETTLED * torch.linalg.matrix_norm(product):
            break
        previous = product
    return product


def _weighted_rows(squares: Tensor, products: Tensor, basis: Tensor) -> Tensor:
    """For each row i the combination of ``basis`` (n, r) that is nearest with weights ``squares`` (m, n), (m, r)."""
    pairs = (basis.unsqueeze(2) * basis.unsqueeze(1)).flatten(1)  # (n, r * r)
    grams = (squares @ pairs).view(-1, basis.shape[1], basis.shape[1])
    ridge = TINY_SHARE * grams.diagonal(dim1=1, dim2=2).mean(1).clamp(min=TINY)
    grams.diagonal(dim1=1, dim2=2).add_(ridge.unsqueeze(1))
    return torch.linalg.solve(grams, products @ basis)


def _rank_one(matrices: Tensor, known: Tensor) -> Tensor:
    """Best rank-one approximation of each of ``matrices`` (n, a, b) on the entries that are ``known`` (1, a, b).

    Exact if all are known. Else alternating least squares from there, which finds a local optimum: each factor in turn
    is optimal for the other on the known entries.
    """
    left, right = _leading(torch.where(known, matrices, 0.0))
    if not known.all():
        weights, values = known.to(matrices.dtype), torch.where(known, matrices, 0.0)
        for _ in range(ROUNDS):
            previous = left
            left = _least_squares(values @ right, weights @ right.square())
            right = _least_squares(values.mT @ left, weights.mT @ left.square())
            scale = torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp(min=TINY)
            left, right = left * scale, right / scale
            if torch.linalg.vector_norm(left - previous) <= SETTLED * torch.linalg.vector_norm(left):
                break
    return left @ right.mT


def _least_squares(products: Tensor, squares: Tensor) -> Tensor:
    return products / squares.clamp(min=TINY)


def _leading(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The first left singular vectors times their values (n, a, 1), and the right ones (n, b, 1)."""
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    return u[:, :, :1] * s[:, :1, None], vh[:, :1].mT
