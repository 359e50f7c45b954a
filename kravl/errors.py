"""What a user wrote is wrong: one line that names the received value and the nearest legal ones."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A wrong value, name, file or folder from the user; the entry points print it as one line and exit with 2."""


def nearest(value: str, legal: Iterable[str], count: int = 3) -> list[str]:
    """The ``count`` names among ``legal`` that are spelt most like ``value``, best first."""
    return get_close_matches(value, list(legal), n=count, cutoff=0.0)


def unknown(kind: str, value: object, legal: Iterable[str]) -> InputError:
    """The error for a name that is none of the ``legal`` ones, with the nearest first."""
    names = sorted(set(legal))
    if not names:
        return InputError(f"unknown {kind} {str(value)!r}; there is none to choose from")
    listed = ", ".join(names) if len(names) <= 20 else f"{len(names)} names"
    return InputError(f"unknown {kind} {str(value)!r}: did you mean {nearest(str(value), names, 1)[0]!r}? ({listed})")


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an exception's message, at most ``limit`` characters, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
