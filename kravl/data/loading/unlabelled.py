"""Batches of image files without labels, decoded as they are used: any number of them in bounded memory."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kravl.data.images import open_rgb
from kravl.data.inspect.file_kinds import is_file, why_no_file
from kravl.data.loading.resumable import LoadingSettings, no_collate, require_handles
from kravl.data.loading.transforms import CentreCrop, Normalization, Pixels, PreprocessLike, height_width
from kravl.runtime.errors import InputError
from kravl.runtime.signals import ignore


class Decoded(NamedTuple):
    """A batch: images (b, 3, height, width) of those of ``paths`` that have no error, in their order."""

    images: Tensor
    paths: tuple[str, ...]
    errors: tuple[str | None, ...]


class NamedImages(Dataset[Decoded]):
    """Image files under the evaluation transform, indexed by their paths; what cannot be read has a reason."""

    def __init__(self, preprocess: PreprocessLike) -> None:
        self._crop = CentreCrop.of(preprocess)
        self._normalize = Normalization(preprocess.mean, preprocess.std)
        self._empty = torch.empty(0, 3, *height_width(preprocess.image_size))

    def __getitems__(self, paths: Sequence[str]) -> Decoded:
        pixels: list[Pixels] = []
        errors: list[str | None] = []
        for path in paths:
            try:
                pixels.append(self._pixels(path))
                errors.append(None)
            except InputError as error:
                errors.append(str(error))
        images = self._normalize(pixels) if pixels else self._empty
        return Decoded(images, tuple(paths), tuple(errors))

    def _pixels(self, path: str) -> Pixels:
        file = Path(path)
        if not is_file(file):  # a pipe would be waited for
            raise InputError(f"cannot read {path}: {why_no_file(file)}")
        return self._crop(open_rgb(file)).transpose(2, 0, 1)


class _Batches:
    """Lists of up to ``size`` paths, taken from ``paths`` as the loader asks for them."""

    def __init__(self, paths: Iterable[str], size: int) -> None:
        self._paths, self._size = iter(paths), size

    def __iter__(self) -> Iterator[list[str]]:
        while batch := list(islice(self._paths, self._size)):
            yield batch


def image_loader(paths: Iterable[str], preprocess: PreprocessLike, batch_size: int, workers: int) -> DataLoader[Any]:
    """`Decoded` batches of the files ``paths``, in their order; ``workers`` processes decode ahead.

    Raises:
        InputError: too few file handles for so many workers.
    """
    require_handles(LoadingSettings(eval_batch_size=batch_size, num_workers=workers))
    return DataLoader(
        NamedImages(preprocess),
        batch_sampler=_Batches(paths, batch_size),  # paths are the indices
        num_workers=workers,
        collate_fn=no_collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        generator=torch.Generator(),
    )
