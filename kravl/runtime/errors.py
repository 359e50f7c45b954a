"""Errors that name the received value, the legal ones and the nearest; package releases that are refused."""

import importlib.metadata
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches

from packaging.version import Version

LONGEST = 200  # characters of a name that is looked up: comparing costs their square
TIES = 5  # names beyond those asked for that may be as near as they are
SHOWN = 2000  # characters of the list of legal names
# package: the oldest release allowed, and why no older one is
SAFE: Mapping[str, tuple[str, str]] = {
    "torch": ("2.10", "a checkpoint gets past weights_only=True (CVE-2025-32434, CVE-2026-24747)"),
    "pytorch-lightning": ("2.6.6", "a checkpoint's hyper-parameters can run code (GHSA-qqmf-gpg7-g8gw)"),
    "hydra-core": ("1.3.8", "a blocked target runs under another name (GHSA-37p2-j732-x8pj)"),
}


class InputError(ValueError):
    """A wrong value, name, file or folder from the user; the entry points print it as one line and exit with 2."""


def nearest(value: str, legal: Iterable[str], count: int = 3) -> list[str]:
    """The ``count`` names among ``legal`` that are spelt most like ``value``, best first.

    Of names that are equally near, one with the same letters comes first: letters are swapped more often than replaced.
    """

    def distance(name: str) -> tuple[float, bool]:
        return -SequenceMatcher(None, name, value).ratio(), sorted(name) != sorted(value)

    return sorted(get_close_matches(value, list(legal), n=count + TIES, cutoff=0.0), key=distance)[:count]


def unknown(kind: str, value: object, legal: Iterable[str], near: Iterable[str] = ()) -> InputError:
    """The error for a name that is not among the ``legal`` ones; it lists them, the nearest first.

    The nearest is one of ``near``, if that is given.
    """
    names, value = sorted(set(legal)), str(value)[:LONGEST]
    if not names:
        return InputError(f"unknown {kind} {value!r}; there are none to choose from")
    listed = ", ".join(names) if len(names) <= 20 else f"{len(names)} names"
    meant = nearest(value, list(near) or names, 1)[0]
    return InputError(f"unknown {kind} {value!r}: did you mean {meant!r}? ({listed[:SHOWN]})")


def some_of(names: Sequence[str], limit: int = 20, separator: str = ", ") -> str:
    """The first ``limit`` of the ``names``, and how many more there are."""
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return separator.join([*names[:limit], *more])


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an exception's message, at most ``limit`` characters, or its type if it is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


def require_name(kind: str, name: object) -> str:
    """``name``, which will name a file or folder and appear in tables.

    Raises:
        InputError: it is empty, too long, or holds anything but letters, digits, '_', '.', '+' and '-'.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{0,199}", name):
        raise InputError(f"{kind} {str(name)[:80]!r} is not a folder name: letters, digits, '_', '.', '+' and '-' only")
    return name


def printable(text: object) -> str:
    """``text`` for a terminal: control characters, which an untrusted file may contain, are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))


def require_safe_versions() -> None:
    """Check the releases that are installed, without importing them.

    Raises:
        InputError: a release that can run code from a file that it reads; which one, why, and what to install.
    """
    for package, (first, reason) in SAFE.items():
        installed = importlib.metadata.version(package)
        if Version(installed).release < Version(first).release:  # 2.10.0a1+cpu is as safe as 2.10
            raise InputError(f"{package} {installed} is not safe: {reason}; pip install '{package}>={first}'")
