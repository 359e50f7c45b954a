"""Keep a small training set in memory: each image decoded once, or where pixels do not fit, its file read once."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from kravl.data.images import decode_rgb
from kravl.data.source import Samples
from kravl.data.transforms import Pixels

MAX_PIXEL_BYTES = 2 * 2**30
MAX_ENCODED_BYTES = 4 * 2**30


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
        form: Callable[[Image.Image], Pixels] = np.array,
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
        pixels = self._form(self.samples.image(index))
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
