"""Methods at equal numbers of parameters: which setting of a method spends a budget best."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from kravl.adapters.base import Adapter
from kravl.adapters.kra import KRAdapter
from kravl.approximation.target import Shape
from kravl.runtime.errors import InputError

MakeAdapter = Callable[..., Adapter]
KNOBS = ("rank", "factor", "split")  # settings that decide the size of a method, in the order in which they are asked
OVER = 1.1  # times the budget: more than that is not comparable


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
