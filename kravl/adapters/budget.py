"""How large an adapter is: the legal values of the hyper-parameter that sets its size, and multiples of KRAdapter's."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeGuard

from kravl.runtime.errors import InputError

MULTIPLE = re.compile(r"(\d+\.?\d*|\.\d+)x")


def kradapter_size(shape: tuple[int, int]) -> int:
    """KRAdapter's trainable parameters on a matrix of ``shape`` with its default split, the unit of budgets."""
    short, long = sorted(shape)
    r = math.isqrt(short)
    return short * (r + math.ceil(long / r))


@dataclass(frozen=True)
class Sizes:
    """The legal ``values`` of the hyper-parameter ``name`` on one matrix, in order of ``count``.

    ``count`` maps a value to the number of trainable parameters.
    """

    name: str
    values: Sequence[int]
    count: Callable[[int], int]

    @classmethod
    def ranks(cls, shape: tuple[int, int], per_rank: int, fixed: int = 0) -> Self:
        """Ranks up to the longer side, each of which adds ``per_rank`` parameters to the ``fixed`` ones."""
        return cls("rank", range(1, max(shape) + 1), lambda rank: per_rank * rank + fixed)

    @classmethod
    def numbers(cls, name: str, shape: tuple[int, int]) -> Self:
        """One parameter each for some of the entries of the matrix, or of its spectrum."""
        return cls(name, range(1, shape[0] * shape[1] + 1), lambda number: number)

    @classmethod
    def of(cls, name: str, values: Sequence[int], count: Callable[[int], int]) -> Self:
        """The ``values`` sorted by their ``count``; of equal counts the smaller value first."""
        return cls(name, sorted(values, key=lambda value: (count(value), value)), count)

    def nearest(self, number: float) -> int:
        """The value whose number of parameters is nearest to ``number``; of two equally near the smaller adapter."""
        at = bisect_left(self.values, number, key=self.count)
        around = self.values[max(at - 1, 0) : at + 1]
        return min(around, key=lambda value: abs(self.count(value) - number))

    def choose(self, size: int | str, shape: tuple[int, int]) -> int:
        """``size``, or for a text such as "1x" the value nearest to that multiple of KRAdapter's parameters.

        Raises:
            InputError: a number that is not legal, with the nearest that are, or neither a number nor a multiple.
        """
        if isinstance(size, str) and (multiple := MULTIPLE.fullmatch(size)) and float(multiple[1]) > 0:
            return self.nearest(float(multiple[1]) * kradapter_size(shape))
        if not _is_positive(size):
            raise InputError(
                f"{self.name} must be a whole number of at least 1, or a multiple of KRAdapter's number of parameters "
                f"such as '1x', not {size!r}"
            )
        return self.pick(size, shape, "; '1x' takes the one nearest to KRAdapter's number of parameters")

    def pick(self, size: int | str, shape: tuple[int, int], advice: str = "") -> int:
        """``size``. Raises InputError with the nearest that are legal, and ``advice``, if it is not."""
        if _is_positive(size) and size in self.values:
            return size
        ordered = self.values if isinstance(self.values, range) else sorted(self.values)
        at = bisect_left(ordered, size) if _is_positive(size) else 0
        near = " and ".join(str(value) for value in ordered[max(at - 1, 0) : at + 1])
        matrix = f"a matrix of {shape[0]} x {shape[1]}"
        raise InputError(f"{self.name} {size} does not fit {matrix}; the nearest that fits is {near}{advice}")


def _is_positive(size: int | str) -> TypeGuard[int]:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1


def common_divisors(*sides: int) -> list[int]:
    """The numbers that divide all ``sides``, ascending."""
    greatest = math.gcd(*sides)
    return [number for number in range(1, greatest + 1) if greatest % number == 0]
