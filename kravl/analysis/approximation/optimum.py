"""The best that is possible: closed forms, and equal budgets of parameters."""

from collections.abc import Callable, Sequence
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
KNOBS = ("rank", "factor", "split")  # settings that decide the size of a method, in the order in which they are asked
OVER = 1.1  # times the budget: more than that is not comparable
ROUNDS = 200  # at most, of alternating least squares where entries are cut; none raises the error
SETTLED = 1e-6  # relative change of a factor
TINY = 1e-300  # keeps rows of zeros zero


class OverBudgetError(InputError):
    """The smallest member of a method is larger than the budget."""


def count(make: MakeAdapter, shape: Shape) -> int:
    """Trainable parameters of an adapter of ``shape``, without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(*shape).parameters() if p.requires_grad)


def unit(shape: Shape) -> int:
    """The number of parameters that budgets are multiples of: that of KRAdapter, which has no size to choose."""
    return count(KRAdapter, shape)


def sizes(make: MakeAdapter, shape: Shape) -> list[tuple[int, MakeAdapter]]:
    """(trainable parameters, constructor) of ``make`` as it is, then with every value of the first knob it has."""
    with torch.device("meta"):
        legal = make(*shape).hyperparameters()
    knob = next((name for name in KNOBS if name in legal), None)
    members = [make]
    if knob:
        members += [partial(make, **{knob: value}) for value in range(1, max(shape) + 1)]
    return [(count(each, shape), each) for each in members]


def spend(name: str, sized: Sequence[tuple[int, MakeAdapter]], shape: Shape, budget: float) -> tuple[MakeAdapter, int]:
    """The member of `sizes` whose number of parameters is nearest to ``budget``, and that number.

    Its own settings win a tie. A method whose largest member is smaller keeps that one: the number tells.

    Raises:
        OverBudgetError: even its smallest member is larger by a tenth.
    """
    smallest = min(number for number, _ in sized)
    if smallest > OVER * budget:
        raise OverBudgetError(
            f"{name} trains at least {smallest:,} parameters on a {shape[0]} x {shape[1]} matrix; "
            f"the budget is {budget:,.0f}"
        )
    number, best = min(sized, key=lambda each: (abs(each[0] - budget), each[0]))
    return best, number


@singledispatch
def optimum(adapter: Adapter, target: Tensor) -> Tensor | None:
    """The ΔW of this method and size that is nearest to ``target`` (out, in) in Frobenius norm; None if unknown.

    A method without a closed form needs nothing here.
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
    """Each row of the shorter side by itself: folded to (c, r) it is v uᵀ, so its best is of rank one.

    Where r * c is more than the longer side, the cut entries are free; see `_rank_one`.
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
    whole = best.view(f, f, p, q).transpose(1, 2).reshape(f * p, f * q)
    return whole[: target.shape[0], : target.shape[1]]


def _rank_one(matrices: Tensor, known: Tensor) -> Tensor:
    """Best rank-one approximation of each of ``matrices`` (n, a, b) on the entries that are ``known`` (1, a, b).

    Exact where all are. Else alternating least squares from there, which finds a local optimum: each factor in turn is
    the best for the other on the known entries.
    """
    left, right = _leading(torch.where(known, matrices, 0.0))
    if not known.all():
        weights, values = known.to(matrices.dtype), torch.where(known, matrices, 0.0)
        for _ in range(ROUNDS):
            previous = left
            left = _best(values @ right, weights @ right.square())
            right = _best(values.mT @ left, weights.mT @ left.square())
            scale = torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp(min=TINY)
            left, right = left * scale, right / scale
            if torch.linalg.vector_norm(left - previous) <= SETTLED * torch.linalg.vector_norm(left):
                break
    return left @ right.mT


def _best(products: Tensor, squares: Tensor) -> Tensor:
    return products / squares.clamp(min=TINY)


def _leading(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The first singular vectors (n, a, 1) times the value, and (n, b, 1)."""
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    return u[:, :, :1] * s[:, :1, None], vh[:, :1].mT
