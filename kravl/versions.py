"""Releases of libraries that run code from a file of weights or a config: kravl does not start on them."""

import importlib.metadata
import re
from collections.abc import Mapping

from kravl.errors import InputError

# package: the first release to use, and why not an earlier one
SAFE: Mapping[str, tuple[str, str]] = {
    "torch": ("2.10", "a checkpoint gets past weights_only=True (CVE-2025-32434, CVE-2026-24747)"),
    "pytorch-lightning": ("2.6.6", "hyper-parameters of a checkpoint run code (GHSA-qqmf-gpg7-g8gw)"),
    "hydra-core": ("1.3.8", "a blocked target runs under another name (GHSA-37p2-j732-x8pj)"),
}


def require_safe_versions() -> None:
    """Ask what is installed, without importing it.

    Raises:
        InputError: a release that runs code which a file brings; which one, why, and what to install.
    """
    for package, (first, reason) in SAFE.items():
        found = importlib.metadata.version(package)
        if _numbers(found) < _numbers(first):
            raise InputError(f"{package} {found} is not safe: {reason}; pip install '{package}>={first}'")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version starts with; 2.10.0a1+cpu is (2, 10, 0)."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
