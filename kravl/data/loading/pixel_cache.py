"""Resized evaluation images kept on disk, shared by runs."""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torchvision
from safetensors import SafetensorError, safe_open

from kravl.data.loading.cache import Checked
from kravl.data.loading.transforms import CentreCrop, Pixels, height_width
from kravl.data.source import Samples

log = logging.getLogger(__name__)
VERSION = f"1, Pillow {PIL.__version__}, torchvision {torchvision.__version__}"  # whatever may change a pixel


class PixelFile:
    """The pixels (3, height, width) of image files ``paths`` under ``crop``, kept in ``folder``.

    The name of the file follows from paths and crop; that it is of these images, from their sizes and times of change
    and from the versions of what decodes and resizes, which it holds.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], crop: CentreCrop) -> None:
        absolute = [str(path.absolute()) for path in paths]
        self.path = folder / f"{_digest([repr(crop), *absolute])[:32]}.safetensors"
        self.shape = (len(paths), 3, *height_width(crop.size))
        self.num_bytes = math.prod(self.shape)
        self._state = _digest([VERSION, *map(_state, paths)])
        self._pixels: Pixels | None = None

    def __getitem__(self, index: int) -> Pixels:
        if self._pixels is None and not self.open():
            raise RuntimeError(f"{self.path} is not written, or of other images; call open first")
        assert self._pixels is not None
        return self._pixels[index]

    def open(self) -> bool:
        """Map the file into memory; False if it is missing, unfinished or of other images."""
        try:
            with safe_open(self.path, "numpy") as file:  # checks that it is whole
                if file.metadata() != {"state": self._state} or list(file.keys()) != ["pixels"]:
                    return False
                pixels = file.get_slice("pixels")
                if pixels.get_dtype() != "U8" or tuple(pixels.get_shape()) != self.shape:
                    return False
        except (OSError, SafetensorError):
            return False
        start = self.path.stat().st_size - self.num_bytes
        self._pixels = np.memmap(self.path, np.uint8, "r", start, self.shape)
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process writes the file; the kernel lets go of the lock of one that died.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for the process that writes %s", self.path)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def header(self) -> bytes:
        """What a safetensors file has before its data."""
        entry = {"dtype": "U8", "shape": self.shape, "data_offsets": (0, self.num_bytes)}
        text = json.dumps({"__metadata__": {"state": self._state}, "pixels": entry}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}  # numpy would send a copy of the whole file


class Writer:
    """Writes a `PixelFile` image by image, from several threads, to a file beside it; `finish` puts it in place."""

    def __init__(self, target: PixelFile, samples: Samples, crop: CentreCrop) -> None:
        if shutil.disk_usage(target.path.parent).free < 2 * target.num_bytes:
            raise OSError(f"{2 * target.num_bytes:,} bytes should be free")
        self.samples = samples
        self.failure: OSError | None = None
        self._target = target
        self._crop = crop
        self._part = target.path.with_suffix(".part")  # what an interrupted process left is overwritten
        self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._start = os.write(self._descriptor, target.header())

    def __len__(self) -> int:
        return len(self.samples)

    def check(self, index: int) -> None:
        """Read, resize and write one image.

        Raises:
            InputError: it cannot be read.
        """
        pixels = self._crop(self.samples.image(index)).transpose(2, 0, 1).tobytes()
        try:
            written = os.pwrite(self._descriptor, pixels, self._start + index * len(pixels))
            if written < len(pixels):
                raise OSError("no room for the whole of it")
        except OSError as error:
            self.failure = error

    def finish(self, whole: bool) -> None:
        """Put the file in place if it is ``whole``, and drop it otherwise."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.failure = error
        finally:
            os.close(self._descriptor)
        if whole and self.failure is None:
            self._part.replace(self._target.path)
        else:
            self._part.unlink()


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return str(error)  # reading it will say so
    return f"{status.st_size} {status.st_mtime_ns}"


def pixel_file(cache_root: str | None, samples: Samples, crop: CentreCrop) -> PixelFile | None:
    """Where the images are kept; None if they are not: without a ``cache_root``, or where they are not plain files."""
    paths = [samples.file(i) for i in range(len(samples))]
    files = [path for path in paths if path is not None]
    if cache_root is None or not files or len(files) < len(paths):
        return None
    return PixelFile(Path(cache_root).expanduser(), files, crop)


@contextmanager
def writing(cache_root: str | None, sets: Mapping[str, Samples], crop: CentreCrop) -> Iterator[dict[str, Checked]]:
    """For each set what `check_images` is to go over; whatever it writes is in place when the block ends well.

    That is a writer, nothing of a set that is written already, or the set itself if it is not kept. A folder that
    cannot be written costs time and a line in the log, no run.
    """
    files = {name: pixel_file(cache_root, samples, crop) for name, samples in sets.items()}
    checked: dict[str, Checked] = dict(sets)
    writers: list[Writer] = []
    locked: set[Path] = set()
    with ExitStack() as stack:
        # in the order of their paths: two processes that each hold what the other waits for would wait for ever
        for name, file in sorted(files.items(), key=lambda item: str(item[1] and item[1].path)):
            if file is None:
                continue
            nothing = sets[name].subset(())
            if file.path in locked:  # the images of another set: waiting for its lock would be for ever
                checked[name] = nothing
                continue
            try:
                stack.enter_context(file.locked())
                locked.add(file.path)
                if file.open():
                    checked[name] = nothing
                else:
                    checked[name] = writer = Writer(file, sets[name], crop)
                    writers.append(writer)
            except OSError as error:
                log.warning("%s is read anew each time: nothing is kept in %s: %s", name, file.path.parent, error)
        whole = False
        try:
            yield checked
            whole = True
        finally:
            for writer in writers:
                writer.finish(whole)
                if whole and writer.failure:
                    log.warning("evaluation images are not kept: %s", writer.failure)
