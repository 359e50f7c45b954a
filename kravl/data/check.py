"""Open every image of every set before training starts, and name all the bad ones at once."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from rich.console import Console
from rich.progress import Progress

from kravl.runtime.errors import InputError
from kravl.runtime.signals import poll

LISTED = 20
MAX_THREADS = 8
AT_ONCE = 16  # images a job: enough that handing jobs out costs nothing, few enough that Ctrl-C is heard soon


class Checked(Protocol):
    """Images of a set: the set itself, or a cache that keeps what it decodes."""

    def __len__(self) -> int: ...
    def check(self, index: int) -> None:
        """Raise InputError if the image at ``index`` cannot be read; called from several threads."""


Job = tuple[str, Checked, range]  # set, its images, and which of them


def check_images(images_by_set: Mapping[str, Checked]) -> None:
    """Decode each image once, several at a time; a bar on stderr where that is a terminal.

    Raises:
        InputError: one or more cannot be read: how many of how many, then set, path and reason of up to 20.
    """
    total = sum(map(len, images_by_set.values()))
    console = Console(stderr=True)
    bad: list[str] = []
    count = 0
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("checking images", total=total)
        for size, problems in _checked(_jobs(images_by_set)):
            poll()
            progress.advance(bar, size)
            count += len(problems)
            bad += problems[: LISTED - len(bad)]
    if count:
        listed = "\n".join(f"  {line}" for line in bad)
        more = f"\n  and {count - LISTED} more" if count > LISTED else ""
        raise InputError(f"{count} of {total} images cannot be used:\n{listed}{more}")


def _jobs(images_by_set: Mapping[str, Checked]) -> Iterator[Job]:
    for name, images in images_by_set.items():
        for start in range(0, len(images), AT_ONCE):
            yield name, images, range(start, min(start + AT_ONCE, len(images)))


def _checked(jobs: Iterable[Job]) -> Iterator[tuple[int, list[str]]]:
    """How many images each job has, and what is wrong with them, in order; a few jobs ahead are under way at a time.

    All of them at once would be a future for every image of every set before the first is opened.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[int, Future[list[str]]]] = deque()
        try:
            for job in jobs:
                waiting.append((len(job[2]), pool.submit(_problems, job)))
                if len(waiting) > 2 * threads:
                    size, oldest = waiting.popleft()
                    yield size, oldest.result()
            for size, future in waiting:
                yield size, future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # of an interrupted check, the images that are left


def _problems(job: Job) -> list[str]:
    name, images, indices = job
    found = []
    for i in indices:
        try:
            images.check(i)
        except InputError as error:
            found.append(f"{name}: {error}")
    return found
