"""What a user wrote is wrong: one line that names the received value and the nearest legal ones."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 200  # characters of a name that is looked up: comparing takes their square
SHOWN = 2000  # characters of the names to choose from


class InputError(ValueError):
    """A wrong value, name, file or folder from the user; the entry points print it as one line and exit with 2."""


def nearest(value: str, legal: Iterable[str], count: int = 3) -> list[str]:
    """The ``count`` names among ``legal`` that are spelt most like ``value``, best first."""
    return get_close_matches(value, list(legal), n=count, cutoff=0.0)


def unknown(kind: str, value: object, legal: Iterable[str]) -> InputError:
    """The error for a name that is none of the ``legal`` ones, with the nearest first."""
    names, value = sorted(set(legal)), str(value)[:LONGEST]
    if not names:
        return InputError(f"unknown {kind} {value!r}; there is none to choose from")
    listed = ", ".join(names) if len(names) <= 20 else f"{len(names)} names"
    return InputError(f"unknown {kind} {value!r}: did you mean {nearest(value, names, 1)[0]!r}? ({listed[:SHOWN]})")


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an exception's message, at most ``limit`` characters, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


def require_name(kind: str, name: object) -> str:
    """``name``, which is to be a file or a folder and to stand in tables.

    Raises:
        InputError: it is empty, too long, or holds anything but letters, digits, '_', '.', '+' and '-'.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{0,199}", name):
        raise InputError(f"{kind} {str(name)[:80]!r} is no folder name: letters, digits, '_', '.', '+' and '-' only")
    return name


def printable(text: object) -> str:
    """``text`` for a terminal: what a foreign file may have put in it to steer the terminal is spelt out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))
