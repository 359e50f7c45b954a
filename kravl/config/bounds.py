"""What the schema says of a setting beyond its type: the numbers or words that it may be."""

from collections.abc import Sequence
from dataclasses import field
from typing import Any, NamedTuple

MOST = 10**9  # of anything that is counted
LARGE = 1e30  # of any other number: single precision ends at 3e38
LARGEST_SEED = 2**32 - 1  # NumPy's
SHOWN = 60


class Bounds(NamedTuple):
    """The numbers from ``low`` to ``high``, without an end that is ``open``; ``whole`` ones alone."""

    low: float
    high: float = LARGE
    whole: bool = False
    low_open: bool = False
    high_open: bool = False

    def allow(self, value: object) -> bool:
        """Whether ``value`` is one of them."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        inside = self.low < value < self.high or (value == self.low and not self.low_open)
        return inside or (value == self.high and not self.high_open)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low:g}" if self.low_open else f"of at least {self.low:g}"
        high = f"{self.high:,}" if isinstance(self.high, int) else f"{self.high:g}"
        return f"{kind} {low} and {'below' if self.high_open else 'at most'} {high}"


def whole(low: int = 0, high: int = MOST) -> Bounds:
    """Whole numbers from ``low`` to ``high``."""
    return Bounds(low, high, whole=True)


FINITE = Bounds(-LARGE)
SEED = whole(0, LARGEST_SEED)
POSITIVE = Bounds(0, low_open=True)
NOT_NEGATIVE = Bounds(0)
SHARE = Bounds(0, 1)
SHARE_BELOW_1 = Bounds(0, 1, high_open=True)


def limited(default: Any, bounds: Bounds | None = None, each: Bounds | None = None, among: float | None = None) -> Any:
    """A setting that is a number within ``bounds``, or a list of numbers within ``each``, ``among`` them that one."""
    return field(default=default, metadata={"bounds": bounds, "each": each, "among": among, "shortest": 1})


def limited_list(default: Sequence[float], each: Bounds, length: int | None = None) -> Any:
    """A setting that is a list of numbers within ``each``, so many of them or any number."""
    return field(default_factory=lambda: list(default), metadata={"each": each, "length": length})


def one_of(default: str, *others: str) -> Any:
    """A setting that is one of a few words."""
    return field(default=default, metadata={"choices": (default, *others)})


def words_of(default: str, *others: str, alone: str) -> Any:
    """A setting that is one of a few words, or a list of some, each once; ``alone`` goes with no other."""
    return field(
        default=default,
        metadata={"choices": (default, *others), "alone": alone, "types": ("str", "list[str]")},
    )


def named(**numbers: Bounds) -> Any:
    """An open mapping, of which the numbers of these names are within bounds, wherever they stand."""
    return field(default_factory=dict, metadata={"named": numbers})


def shown(value: object) -> str:
    """``value`` for a line; Python does not print a number of thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**SHOWN:
        return f"a number of more than {SHOWN} digits"
    return str(value)[:SHOWN]
