"""In which order an update that is a product of two factors is multiplied: the one that takes the fewest operations."""

from functools import lru_cache
from itertools import product, starmap
from typing import NamedTuple


class Plan(NamedTuple):
    """The order of products.

    ``chain``: the factors act on the tokens one after the other, else ΔW is added to the weight; ``chain_back``: so for
    the gradient of the input; ``dense``: the factors' gradients come from that of the whole weight, else from tokens.
    """

    chain: bool
    chain_back: bool
    dense: bool


class Factors(NamedTuple):
    """Sizes of the factors (out, inner) and (inner, in), and whether parameters that train enter the one, the other."""

    inner: int
    out: int
    columns: int
    trains_up: bool
    trains_down: bool


PLANS = tuple(starmap(Plan, product((False, True), repeat=3)))


def operations(tokens: int, factors: Factors, plan: Plan, slower: int = 1) -> int:
    """Multiplications of the update, forward and backward, beside the frozen layer's; merging counts ``slower``."""
    k, rows, columns, up, down = factors
    merge, hidden_in, hidden_out = k * rows * columns, tokens * k * columns, tokens * k * rows
    own = slower * merge
    total = (hidden_in + hidden_out if plan.chain else own) + (hidden_in if plan.chain_back else own)
    if plan.dense:
        return total + tokens * rows * columns + hidden_out * plan.chain_back + merge * (up + down)
    total += hidden_out * (plan.chain_back or down) + hidden_in * down
    return total + up * (hidden_out + hidden_in * (not plan.chain))


def shortest(tokens: int, factors: Factors, slower: int = 1) -> Plan:
    """The plan of the fewest `operations`."""
    return min(PLANS, key=lambda plan: operations(tokens, factors, plan, slower))


known_shortest = lru_cache(maxsize=4096)(shortest)  # asked several times in every layer of every step
