"""Resized evaluation images kept on disk, shared by runs."""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torchvision
import xxhash
from safetensors import SafetensorError, safe_open

from kravl.data.images import FileOpener
from kravl.data.loading.cache import Checked
from kravl.data.loading.transforms import CentreCrop, Pixels, height_width
from kravl.data.source import Samples
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import refuse_endless
from kravl.runtime.own_files import create_own, open_own

log = logging.getLogger(__name__)
VERSION = f"2, Pillow {PIL.__version__}, torchvision {torchvision.__version__}"  # whatever may change a pixel
CHECKSUM = 8  # bytes of XXH3 for each image


class PixelFile:
    """The pixels (3, height, width) of ``samples``, which are files, under ``crop``, kept in ``folder``.

    The name of the file follows from paths and crop; that it is of these images, from their sizes and times of change
    and from the versions of what decodes and resizes, which it holds. An image is held against its checksum when it is
    read first; one that is damaged is read from its own file again, which is told, and the file is written anew by the
    next run.
    """

    def __init__(self, folder: Path, samples: Samples, crop: CentreCrop) -> None:
        paths = list(samples.files())
        self.path = folder / f"{_digest([repr(crop), *_absolute(paths)])[:32]}.safetensors"
        self.shape = (len(paths), 3, *height_width(crop.size))
        self.num_bytes = math.prod(self.shape)
        self._samples, self._crop = samples, crop
        self._metadata = {"state": _digest([VERSION, *map(_state, paths)]), "images": images_sha256(samples)}
        self._pixels: Pixels | None = None
        self._checksums: list[int] = []
        self._sound = bytearray()  # of each image, whether it has been held against its checksum
        self._mended: dict[int, Pixels] = {}

    def __getitem__(self, index: int) -> Pixels:
        if self._pixels is None and not self.open():
            raise RuntimeError(f"{self.path} is not written, or of other images; call open first")
        assert self._pixels is not None
        pixels = self._pixels[index]
        if self._sound[index]:
            return pixels
        if index not in self._mended:
            if xxhash.xxh3_64_intdigest(pixels) == self._checksums[index]:
                self._sound[index] = True
                return pixels
            if not self._mended:
                log.warning("%s is damaged: images are read anew; the next run writes it again", self.path)
                with suppress(OSError):  # a folder that can only be read
                    self.path.unlink()
            self._mended[index] = self._crop(self._samples.image(index)).transpose(2, 0, 1)
        return self._mended[index]

    def open(self) -> bool:
        """Map the file into memory; False if it is missing, unfinished or of other images."""
        expected = {"checksums": ("U8", self.shape[0], CHECKSUM), "pixels": ("U8", *self.shape)}
        try:
            refuse_endless(self.path)
            with safe_open(self.path, "numpy") as file:  # checks that it is whole
                kinds = {
                    name: (file.get_slice(name).get_dtype(), *file.get_slice(name).get_shape()) for name in expected
                }
                if file.metadata() != self._metadata or kinds != expected:
                    return False
                self._checksums = file.get_tensor("checksums").view(">u8").ravel().tolist()  # as digests are written
        except (OSError, SafetensorError, InputError):
            return False
        start = self.path.stat().st_size - self.num_bytes
        # as a plain array, of which an image is taken in half the time
        self._pixels = np.asarray(np.memmap(self.path, np.uint8, "r", start, self.shape))
        self._sound = bytearray(self.shape[0])
        return True

    def header(self) -> bytes:
        """What a safetensors file has before its data: the checksums, then the pixels."""
        count = self.shape[0] * CHECKSUM
        checksums = {"dtype": "U8", "shape": (self.shape[0], CHECKSUM), "data_offsets": (0, count)}
        pixels = {"dtype": "U8", "shape": self.shape, "data_offsets": (count, count + self.num_bytes)}
        text = json.dumps({"__metadata__": self._metadata, "checksums": checksums, "pixels": pixels}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}  # numpy would send a copy of the whole file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within the block no other process writes the file; the kernel lets go of the lock of one that died.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_own(path.with_suffix(".lock")), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the process that writes %s", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Writer:
    """Writes a `PixelFile` image by image, from several threads, to a file beside it; `finish` puts it in place."""

    def __init__(self, target: PixelFile, samples: Samples, crop: CentreCrop) -> None:
        if shutil.disk_usage(target.path.parent).free < 2 * target.num_bytes:
            raise OSError(f"{2 * target.num_bytes:,} bytes should be free")
        self.samples = samples
        self.failure: OSError | None = None
        self._target = target
        self._crop = crop
        self._part = target.path.with_suffix(".part")
        self._descriptor = create_own(self._part)  # not what an interrupted process left
        header = target.header()
        self._checksums = len(header)
        self._start = len(header) + CHECKSUM * len(samples)
        os.write(self._descriptor, header)

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
            written += os.pwrite(self._descriptor, checksum(pixels), self._checksums + index * CHECKSUM)
            if written < len(pixels) + CHECKSUM:
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
        try:
            if whole and self.failure is None:
                self._part.replace(self._target.path)
        except OSError as error:  # a folder of that name
            self.failure = error
        self._part.unlink(missing_ok=True)


def checksum(pixels: Pixels | bytes) -> bytes:
    """XXH3 of the pixels: one that keeps up with reading them."""
    return xxhash.xxh3_64_digest(pixels)  # type: ignore[arg-type]  # of an array, it takes the memory


def images_sha256(samples: Samples) -> str:
    """A digest of the paths of the images, by which the files that hold them are found."""
    return _digest(_absolute(list(samples.files())))


def damaged_files(cache_root: Path, sets: Iterable[Samples]) -> Iterator[str]:
    """A line for each file in ``cache_root`` that holds one of ``sets`` and whose pixels are not what was written."""
    wanted = {images_sha256(samples) for samples in sets}
    for path in sorted(cache_root.expanduser().glob("*.safetensors")):
        try:
            refuse_endless(path)
            with safe_open(path, "numpy") as file:
                if (file.metadata() or {}).get("images") not in wanted:
                    continue
                checksums, pixels = file.get_tensor("checksums"), file.get_slice("pixels")
                wrong = sum(checksum(pixels[i]) != known.tobytes() for i, known in enumerate(checksums))
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            yield f"{path} is damaged: {first_line(error)}; remove it"
            continue
        if wrong:
            yield f"{path} is damaged: {wrong} of {len(checksums)} images are not what was written; remove it"


def _absolute(paths: Sequence[Path]) -> list[str]:
    return [str(path.absolute()) for path in paths]


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
    if cache_root is None or not len(samples) or not isinstance(samples.opener, FileOpener):
        return None
    return PixelFile(Path(cache_root).expanduser(), samples, crop)


@contextmanager
def writing(cache_root: str | None, sets: Mapping[str, Samples], crop: CentreCrop) -> Iterator[dict[str, Checked]]:
    """For each set what `check_images` is to go over; whatever it writes is in place when the block ends well.

    That is a writer, nothing of a set that is written already, or the set itself if it is not kept. A folder that
    cannot be written costs time and a line in the log, no run.
    """
    files = {name: pixel_file(cache_root, samples, crop) for name, samples in sets.items()}
    checked: dict[str, Checked] = dict(sets)
    writers: list[Writer] = []
    held: set[Path] = set()
    with ExitStack() as stack:
        # in the order of their paths: two processes that each hold what the other waits for would wait for ever
        for name, file in sorted(files.items(), key=lambda item: str(item[1] and item[1].path)):
            if file is None:
                continue
            nothing = sets[name].subset(())
            if file.path in held:  # the images of another set: waiting for its lock would be for ever
                checked[name] = nothing
                continue
            try:
                stack.enter_context(locked(file.path))
                held.add(file.path)
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
