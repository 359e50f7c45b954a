"""Decoded images kept in memory, and every image checked before anything is trained."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from kravl.data.images import decode_rgb
from kravl.data.loading.transforms import Pixels
from kravl.data.source import Samples
from kravl.runtime.errors import InputError
from kravl.runtime.shared import is_sharing, shared
from kravl.runtime.signals import raise_if_stopped

LISTED = 20
MAX_THREADS = 8
AT_ONCE = 16  # images a job: enough that handing jobs out costs nothing, few enough that Ctrl-C is heard soon
MAX_PIXEL_BYTES = 2 * 2**30
MAX_ENCODED_BYTES = 4 * 2**30


class Checked(Protocol):
    """Images of a set: the set itself, or a cache that keeps what it decodes."""

    def __len__(self) -> int: ...
    def check(self, index: int) -> None:
        """Raise InputError if the image at ``index`` cannot be read; called from several threads."""


Form = Callable[[Image.Image], Pixels]  # a function, or an object that is equal to others that do the same
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
            raise_if_stopped()
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


def read_pixels(samples: Samples, index: int, form: Form) -> Pixels:
    """``form`` of the image at ``index``; runs of one worker share it and must not write to it.

    Raises:
        InputError: the image cannot be read.
    """
    image = samples.identity(index) if is_sharing() else None
    key = None if image is None else ("pixels", form, *image)
    return shared(key, lambda: form(samples.image(index)), lambda pixels: pixels.nbytes)


class Cache:
    """The images of ``samples`` as pixels; those that do not fit as the bytes of their files.

    Args:
        form: from an image to the pixels that are kept, such as its resized centre; by default all of them.
        max_pixel_bytes: how many bytes of pixels are kept, in the order of their first use, up to the first that does
            not fit.
        max_encoded_bytes: likewise of the files of the images after that; the rest is read each time.
    """

    def __init__(
        self,
        samples: Samples,
        form: Form = np.array,
        max_pixel_bytes: int = MAX_PIXEL_BYTES,
        max_encoded_bytes: int = MAX_ENCODED_BYTES,
    ) -> None:
        self.samples = samples
        self.room = {"pixels": max_pixel_bytes, "encoded": max_encoded_bytes}  # bytes that are left
        self._form = form
        self._pixels: dict[int, Pixels] = {}
        self._encoded: dict[int, bytes] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Pixels:
        """The pixels of the image at ``index``; callers share them and must not write to them.

        Raises:
            InputError: the image cannot be read.
        """
        if index in self._pixels:
            return self._pixels[index]
        if index in self._encoded:
            return self._form(decode_rgb(self._encoded[index], self.samples.names[index]))
        pixels = read_pixels(self.samples, index, self._form)
        if self._take("pixels", pixels.nbytes):
            self._pixels[index] = pixels
        elif (file := self.samples.file(index)) and self._take("encoded", file.stat().st_size):
            self._encoded[index] = file.read_bytes()
        return pixels

    def check(self, index: int) -> None:
        """Raise InputError if the image cannot be read; keep it if there is room."""
        if any(self.room.values()):
            self[index]
        elif index not in self._pixels and index not in self._encoded:
            self.samples.check(index)

    def fill(self) -> None:
        """Read now what fits."""
        for index in range(len(self)):
            if not any(self.room.values()):
                return
            self[index]

    def _take(self, kind: str, num_bytes: int) -> bool:
        with self._lock:
            fits = num_bytes <= self.room[kind]
            self.room[kind] = self.room[kind] - num_bytes if fits else 0
            return fits

    def __getstate__(self) -> dict[str, Any]:
        # a worker that is not forked reads for itself: sending gigabytes through a pipe would take longer
        return self.__dict__ | {"_pixels": {}, "_encoded": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": Lock()})
