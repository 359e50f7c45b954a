"""Images that a caller has, as files, pictures or arrays, and their labels: written as folders that a run reads."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kravl.data.images import check_readable, image_endings, open_rgb, upright_rgb
from kravl.data.inspect.file_kinds import is_file
from kravl.run.finished.labels import LABELS, Label, plain_label
from kravl.runtime.errors import InputError
from kravl.runtime.files import write_atomic

CLASS_NAMES = "class_names.csv"
CHANNELS = (1, 3, 4)
NO_IMAGES = "no images are given"


def as_image(value: Any) -> Image.Image:
    """An RGB picture of a path, a PIL image, an array (h, w) or (h, w, c), or a tensor (c, h, w), both of uint8.

    A file and what `PIL.Image.open` returns of it have the same pixels, upright by the file's EXIF orientation; what
    was made of a PIL image (``rotate``, ``transpose``, ``convert``) is taken as its pixels are.

    Raises:
        InputError: anything else, or what cannot be read.
    """
    if isinstance(value, str | os.PathLike):
        return open_rgb(Path(value))
    if isinstance(value, Image.Image):
        return upright_rgb(value, "the PIL image")
    pixels = value.detach().cpu().movedim(0, -1).numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(pixels, np.ndarray):
        raise InputError(f"an image is a path, a PIL image, an array or a tensor, not {type(value).__name__}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in CHANNELS):
        shapes = "(c, h, w)" if isinstance(value, torch.Tensor) else "(h, w) or (h, w, c)"
        raise InputError(f"pixels of shape {tuple(value.shape)} and {value.dtype}; they must be {shapes} and uint8")
    return upright_rgb(Image.fromarray(pixels), "the array")


def listed(images: Any) -> Sequence[Any]:
    """One image or several as a sequence, read on request; (image, label) of a data set without its label."""
    if _is_one(images):
        return [images]
    if isinstance(images, torch.utils.data.Dataset):
        return _Unlabelled(images)
    _refuse_unordered("images", images)
    return images if hasattr(images, "__len__") and hasattr(images, "__getitem__") else list(images)


def listed_labels(labels: Any) -> list[Any]:
    """Labels in their order. Raises InputError for one label alone, and for what has no order."""
    if isinstance(labels, str | int) or not hasattr(labels, "__iter__"):
        given_as = f"labels={str(labels)[:80]!r} is {type(labels).__name__}"
        raise InputError(f"{given_as}; labels are a list with one for each image, such as ['cat', 'dog']")
    _refuse_unordered("labels", labels)
    return list(_each_of(labels))


def each(images: Any) -> Iterator[Any]:
    """One image after the other, as `listed`, of which those of a data set or a generator need not fit into memory."""
    endless = not _is_one(images) and not hasattr(images, "__len__")
    return iter(images) if endless else _each_of(listed(images))


def _each_of(values: Any) -> Iterator[Any]:
    """As many as there are: what has a length need not end, as where its ``__getitem__`` raises no IndexError."""
    return islice(values, len(values)) if hasattr(values, "__len__") else iter(values)


def _refuse_unordered(what: str, given: Any) -> None:
    """Raise InputError for a dict, which iterates over its keys, and for a set; views of a dict have its order."""
    if isinstance(given, Mapping | set | frozenset):
        raise InputError(f"{what} are a {type(given).__name__}; they must have an order, as those of a list have")


def _is_one(images: Any) -> bool:
    """Whether it is a single image; an array of three dimensions is several grey ones if its last has no channels."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return True
    dimensions = getattr(images, "ndim", None)
    is_grey = dimensions == 3 and isinstance(images, np.ndarray) and images.shape[2] not in CHANNELS
    return dimensions in (2, 3) and not is_grey


class _Unlabelled(Sequence[Any]):
    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        return self._data[index][0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # a data set need not raise IndexError at its end


def pairs(data: Any, labels: Any) -> Iterator[tuple[Any, Label]]:
    """Each image with its label, from a data set of pairs, or from images and as many ``labels``, in their order.

    Raises:
        InputError: numbers that differ, no images, no order, or a label that is neither text nor a whole number.
    """
    if labels is None:
        if not isinstance(data, torch.utils.data.Dataset):
            raise InputError("labels are missing: pass images and labels, or a data set of (image, label)")
        if not hasattr(data, "__len__"):
            raise InputError(f"the data set {type(data).__name__} has no length; pass its images and labels as lists")
        count = len(data)
        given: Iterable[tuple[Any, Any]] = (_pair(data[i]) for i in range(count))
    else:
        named, images = listed_labels(labels), listed(data)
        count = len(named)
        if len(images) != count:
            raise InputError(f"{len(images)} images and {count} labels; each image has one")
        given = _together(images, named)
    if count == 0:
        raise InputError(NO_IMAGES)
    return ((image, plain_label(label)) for image, label in given)


def _together(images: Sequence[Any], labels: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """By place: ``images[i]`` of a pandas Series is the one of index i."""
    ordered = iter(images)
    for position, label in enumerate(labels):
        try:
            image = next(ordered)
        except StopIteration:
            raise InputError(f"the images end after {position}; their length is {len(labels)}") from None
        yield image, label


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        length = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise InputError(f"an item of the data set is a {type(item).__name__}{length}; it must be (image, label)")
    return item[0], item[1]


def write_folders(
    folder: Path, split: str, given: Iterable[tuple[Any, Label]], known: Sequence[Label] = ()
) -> list[Label]:
    """Write ``folder/split/<number of the class>/<number>.png``, a link where the image is a file; returns the labels.

    Classes are numbered in the order of their labels, or in that of the labels ``known``.

    Raises:
        InputError: labels of two types, or one that is not ``known``; an image that cannot be read.
    """
    begun: dict[Label, Path] = {}
    for number, (image, label) in enumerate(given):
        if known and label not in known:
            raise InputError(f"{split}: the label {str(label)[:80]!r} is none of those that are trained on")
        place = begun.setdefault(label, folder / split / f"new{len(begun)}")
        place.mkdir(parents=True, exist_ok=True)
        _write(image, place / f"{number:07}")
    if len({type(label) for label in begun}) > 1:
        raise InputError("labels are texts and numbers; they must be of one type")
    order = list(known) or sorted(begun)
    for label, place in begun.items():
        place.rename(place.with_name(f"{order.index(label):05}"))
    return order


def _write(image: Any, path: Path) -> None:
    if isinstance(image, str | os.PathLike):
        source = Path(image)
        if not is_file(source):
            raise InputError(f"cannot read {source}: no such file")
        ending = source.suffix
        if ending.lower() not in image_endings():  # among other files such a name would not be taken for an image
            check_readable(source)
            ending = ".png"
        path.with_suffix(ending).symlink_to(source.absolute())
    else:
        as_image(image).save(path.with_suffix(".png"), "PNG", compress_level=1, exif=b"")


def write_labels(folder: Path, labels: Sequence[Label], name_of: Callable[[Label], str]) -> None:
    """Write what the numbered classes of `write_folders` are called in a prompt, and which label each stands for."""
    rows = [(f"{number:05}", name_of(label)) for number, label in enumerate(labels)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # as they are: what a spreadsheet computes is a name here
    write_atomic(folder / CLASS_NAMES, text.getvalue())
    write_atomic(folder / LABELS, json.dumps({"labels": list(labels)}) + "\n")
