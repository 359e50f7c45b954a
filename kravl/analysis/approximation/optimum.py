"""The best possible fit: closed forms, and equal parameter budgets."""

from collections.abc import Callable
from functools import partial, singledispatch

import torch
from torch import Tensor
from torch.nn import functional as F

from kravl.adapters.base import Adapter
from kravl.adapters.full import Full
from kravl.adapters.kra import KRAdapter
from kravl.adapters.krona import KronA
from kravl.adapters.lora import LoRA
from kravl.analysis.approximation.target import Shape
from kravl.runtime.errors import InputError

MakeAdapter = Callable[..., Adapter]
OVER = 1.1  # times the budget: a larger adapter is not comparable
ROUNDS = 200  # of alternating least squares at most, where entries are cut; none raises the error
SETTLED = 1e-6  # relative change of a factor
TINY = 1e-300  # keeps rows of zeros zero


class OverBudgetError(InputError):
    """Even the smallest adapter of a method exceeds the budget."""


def count(make: MakeAdapter, shape: Shape) -> int:
    """Trainable parameters of an adapter of ``shape``, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(*shape).parameters() if p.requires_grad)


def unit(shape: Shape) -> int:
    """The number of parameters that budgets are multiples of: KRAdapter's, which has no size to choose."""
    return count(KRAdapter, shape)


def spend(name: str, make: MakeAdapter, shape: Shape, budget: float) -> tuple[MakeAdapter, int]:
    """``make`` with the size whose number of parameters is nearest to ``budget``, and that number.

    The method's own settings win a tie. If even the largest is below the budget, it is taken: the number shows that.

    Raises:
        OverBudgetError: even the smallest exceeds the budget by more than a tenth.
    """
    with torch.device("meta"):
        sizes = make(*shape).legal_sizes()
    own = count(make, shape)
    nearest = None if sizes is None else sizes.nearest(budget)
    smallest = own if sizes is None else min(own, sizes.count(sizes.values[0]))
    if smallest > OVER * budget:
        raise OverBudgetError(
            f"{name} trains at least {smallest:,} parameters on a {shape[0]} x {shape[1]} matrix; "
            f"the budget is {budget:,.0f}"
        )
    if sizes is None or nearest is None or abs(own - budget) <= abs(sizes.count(nearest) - budget):
        return make, own
    return partial(make, **{sizes.name: nearest}), sizes.count(nearest)


@singledispatch
def optimum(adapter: Adapter, target: Tensor) -> Tensor | None:
    """The ΔW of this method and size that is nearest to ``target`` (out, in) in Frobenius norm; None if unknown.

    A method without a closed form registers none.
    """
    return None


@optimum.register
def _(adapter: Full, target: Tensor) -> Tensor | None:
    return target


@optimum.register
def _(adapter: LoRA, target: Tensor) -> Tensor | None:
    """Truncated singular value decomposition (Eckart & Young, Psychometrika 1936)."""
    u, s, vh = torch.linalg.svd(target, full_matrices=False)
    return (u[:, : adapter.rank] * s[: adapter.rank]) @ vh[: adapter.rank]


@optimum.register
def _(adapter: KRAdapter, target: Tensor) -> Tensor | None:
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
def _(adapter: KronA, target: Tensor) -> Tensor | None:
    """Blocks as rows: A ⊗ B becomes vec(A) vec(B)ᵀ (Van Loan & Pitsianis, 1993); cut entries are free."""
    f, (p, q) = adapter.factor, adapter.b.shape

    def as_rows(matrix: Tensor) -> Tensor:
        return matrix.view(f, p, f, q).transpose(1, 2).reshape(1, f * f, p * q)

    margin = (0, f * q - target.shape[1], 0, f * p - target.shape[0])
    known = as_rows(F.pad(torch.ones_like(target), margin)) > 0
    best = _rank_one(as_rows(F.pad(target, margin)), known)
    uncut = best.view(f, f, p, q).transpose(1, 2).reshape(f * p, f * q)
    return uncut[: target.shape[0], : target.shape[1]]


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
