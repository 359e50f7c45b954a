"""At which weights between the pretrained and the adapted model a run is evaluated."""

from collections.abc import Sequence
from typing import Any, cast

from kravl.runtime.errors import InputError


def curve_points(points: int | Sequence[float], zero_shot: bool) -> list[float]:
    """Shares of the update at which a run is evaluated, from 0 to 1; 0 only of a ``zero_shot`` model.

    Args:
        points: how many, evenly spaced, or the shares themselves, 1 among them.

    Raises:
        InputError: it is neither.
    """
    if isinstance(points, int) and not isinstance(points, bool) and points >= 1:
        spread = [i / (points - 1) for i in range(points)] if points > 1 else [1.0]
    elif _are_shares(points):
        spread = sorted({float(share) for share in cast(Sequence[float], points)})
    else:
        raise InputError(
            f"alphas={points}; 1 evaluates the adapted model only, 2 the pretrained one too, 11 or [0,0.3,1] a curve "
            "of shares of the update from 0 to 1, which must be among them"
        )
    return spread if zero_shot else [alpha for alpha in spread if alpha > 0]


def _are_shares(points: Any) -> bool:
    if not isinstance(points, Sequence) or isinstance(points, str) or 1 not in points:
        return False
    return all(isinstance(share, int | float) and 0 <= share <= 1 for share in points)
