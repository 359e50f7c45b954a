"""What a search over settings is told of a run: one metric, and never of a test image."""

from collections.abc import Mapping
from typing import Any

from kravl.runtime.errors import InputError, unknown


def check_objective(name: str | None, held_out: bool) -> None:
    """Raise InputError where a search would look at the test images."""
    if name is not None and not held_out:
        raise InputError(f"objective={name} would search on the test images; add evaluation=validation")


def objective(name: str | None, metrics: Mapping[str, Any]) -> float | Mapping[str, Any]:
    """The metric ``name`` of a run's record; all of the record where nothing is searched for.

    Raises:
        InputError: the run has no such metric (the nearest is named).
    """
    if name is None or not metrics:  # of several processes the first alone has a record
        return metrics
    found = {key: value for key, value in metrics["metrics"].items() if value is not None}
    if name not in found:
        raise unknown("objective", name, found)
    return found[name]
