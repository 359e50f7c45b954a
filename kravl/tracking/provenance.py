"""Which releases and which commit made a record."""

import importlib.metadata
import subprocess
from typing import Any

from kravl.runtime.files import PACKAGE

PACKAGES = ("kravl", "torch", "torchvision", "open_clip_torch", "timm", "pytorch-lightning", "torchmetrics")


def provenance() -> dict[str, Any]:
    """Package versions and the commit of the checkout that kravl runs from (None outside a checkout)."""
    return {"versions": package_versions(), "git_commit": _git_commit()}


def package_versions() -> dict[str, str]:
    """The installed releases of kravl and what it computes with."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _git_commit() -> str | None:
    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(PACKAGE), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no", ".") else commit
