"""Equal parameter budgets: the size of each method whose number of parameters is nearest."""

from collections.abc import Callable
from functools import partial

import torch

from kravl.adapters.base import Adapter
from kravl.adapters.budget import kradapter_size
from kravl.analysis.approximation.target import Shape
from kravl.runtime.errors import InputError

MakeAdapter = Callable[..., Adapter]
OVER = 1.1  # times the budget: a larger adapter is not comparable


class OverBudgetError(InputError):
    """Even the smallest adapter of a method exceeds the budget."""


def count(make: MakeAdapter, shape: Shape) -> int:
    """Trainable parameters of an adapter of ``shape``, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(*shape).parameters() if p.requires_grad)


def unit(shape: Shape) -> int:
    """The number of parameters that budgets are multiples of: KRAdapter's at its own setting."""
    return kradapter_size(shape)


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
