"""Test images and labels in NumPy files: CIFAR-10.1, and the published corruptions CIFAR-10-C and CIFAR-100-C."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kravl.data import catalog
from kravl.data.catalog import find_folder
from kravl.data.images import Opener
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import refuse_endless
from kravl.runtime.shared import Key, file_state

SEVERITIES = 5


@dataclass(frozen=True)
class ArrayOpener(Opener):
    """Rows of an array of RGB images in a file, from ``start`` on; memory-mapped."""

    path: Path
    start: int

    def __call__(self, position: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(_load(self.path)[self.start + position]))

    def files(self, position: int) -> Sequence[Path]:
        return (self.path,)

    def identity(self, position: int) -> Key | None:
        return (file := file_state(self.path)) and (*file, self.start + position)


class ArraySet(Source):
    """Images (n, h, w, 3) uint8 in one file, their labels (n,) in another.

    Args:
        root: the data root, or the set's own folder; see `catalog.find_folder`.
        files: the two, as ``images`` and ``labels``, within the set's folder.
        classes_of: the set whose ``datasets/<set>/classes.txt`` the labels index.
        severity: 1 to 5, where the file holds five severities one after the other; None takes all.

    Raises:
        InputError: no such folder or file, arrays of other shapes, a severity that is not 1 to 5, or unknown labels.
    """

    def __init__(
        self,
        name: str,
        root: str,
        files: Mapping[str, str],
        classes_of: str,
        severity: int | None = None,
        templates: str = "single",
    ) -> None:
        if severity is not None and severity not in range(1, SEVERITIES + 1):
            raise InputError(f"{name}: severity is {severity}; it must be 1 to {SEVERITIES}, or null for all")
        folder = find_folder(name, root)
        classes = catalog.class_names(classes_of)
        if classes is None:
            raise InputError(f"{name}: there is no datasets/{classes_of}/classes.txt")
        numbers = _load(folder / files["labels"])
        _refuse(name, _load(folder / files["images"]), numbers, len(classes))
        size = len(numbers) if severity is None else len(numbers) // SEVERITIES
        start = 0 if severity is None else size * (severity - 1)
        self._labels = tuple(int(n) for n in numbers[start : start + size])
        self._opener = ArrayOpener(folder / files["images"], start)
        identity = (str(folder.resolve()), files["images"], str(severity))
        super().__init__(name, classes, ("test",), identity, templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of the file, named by its row."""
        rows = range(self._opener.start, self._opener.start + len(self._labels))
        return Samples(tuple(f"{self._opener.path.stem}/{row:06d}" for row in rows), self._labels, self._opener)


def _refuse(name: str, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], num_classes: int) -> None:
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or labels.shape != pixels.shape[:1]:
        actual = f"{pixels.dtype} {pixels.shape} and {labels.shape}"
        raise InputError(f"{name}: expected images uint8 (n, h, w, 3) and labels (n,), but found {actual}")
    outside = sorted({int(label) for label in labels} - set(range(num_classes)))
    if outside:
        raise InputError(f"{name}: labels {outside[:10]} are outside the {num_classes} classes")


def _load(path: Path) -> NDArray[np.uint8]:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {first_line(error)}") from error
    return _mapped(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=128)  # CIFAR-10-C is 750,000 images in 15 files: opening a file takes longer than reading a row
def _mapped(path: Path, modified: int, size: int) -> NDArray[np.uint8]:
    """The array in ``path``, mapped once as long as the file does not change."""
    refuse_endless(path)
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(content, np.ndarray):
        raise InputError(f"cannot read {path}: an archive, not one array")
    return content
