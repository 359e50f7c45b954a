"""Open every image of every set before training starts, and name all the bad ones at once."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from rich.console import Console
from rich.progress import Progress

from kravl.errors import InputError
from kravl.interruption import poll

LISTED = 20
MAX_THREADS = 8


class Checked(Protocol):
    """Images of a set: the set itself, or a cache that keeps what it decodes."""

    def __len__(self) -> int: ...
    def check(self, index: int) -> None:
        """Raise InputError if the image at ``index`` cannot be read; called from several threads."""


def check_images(images_by_set: Mapping[str, Checked]) -> None:
    """Decode each image once, several at a time; a bar on stderr where that is a terminal.

    Raises:
        InputError: one or more cannot be read: how many of how many, then set, path and reason of up to 20.
    """
    jobs = [(name, images, i) for name, images in images_by_set.items() for i in range(len(images))]
    console = Console(stderr=True)
    bad = []
    with (
        ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        try:
            for problem in progress.track(pool.map(_problem, jobs), total=len(jobs), description="checking images"):
                poll()
                if problem is not None:
                    bad.append(problem)
        finally:
            pool.shutdown(cancel_futures=True)  # of an interrupted check, the images that are left
    if bad:
        listed = "\n".join(f"  {line}" for line in bad[:LISTED])
        more = f"\n  and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        raise InputError(f"{len(bad)} of {len(jobs)} images cannot be used:\n{listed}{more}")


def _problem(job: tuple[str, Checked, int]) -> str | None:
    name, images, i = job
    try:
        images.check(i)
    except InputError as error:
        return f"{name}: {error}"
    return None
