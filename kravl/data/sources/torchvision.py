"""Any data set of torchvision.datasets that has labelled images and named splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torchvision
from PIL import Image
from torch.utils.data import Dataset

from kravl.data import catalog
from kravl.data.images import Opener, to_rgb
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, unknown

UNPICKLE = ("LSUN", "LSUNClass")  # from a file without a checksum
# torchvision has no common name for them; reading a label through [] would decode its image
LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "_samples", "y")
FILE_ATTRIBUTES = ("_image_files", "_images", "images", "samples", "_samples", "imgs")


@dataclass(frozen=True)
class TorchvisionOpener(Opener):
    """Images that a torchvision data set returns by position."""

    dataset: Dataset[tuple[Image.Image, int]]

    def __call__(self, position: int) -> Image.Image:
        try:
            return to_rgb(self.dataset[position][0])
        except OSError as error:
            raise InputError(f"cannot read image {position}: {error}") from error

    def files(self, position: int) -> Sequence[Path]:
        """The file that torchvision lists for the image; none where it keeps all images in memory."""
        listed = [value for name in FILE_ATTRIBUTES if isinstance(value := vars(self.dataset).get(name), list)]
        entries = [entry[0] if isinstance(entry, tuple) else entry for entry in (files[position] for files in listed)]
        return [Path(entry) for entry in entries[:1] if isinstance(entry, str | PathLike)]


class TorchvisionSet(Source):
    """The class ``torchvision.datasets.<dataset>``.

    Args:
        dataset: the class, such as ``CIFAR10``.
        splits: for train, val and test, as far as they exist, the arguments that select it, such as
            ``{train: {train: true}, test: {train: false}}``.
        download: whether to fetch what is missing from ``root``.

    Class names are the lines of ``datasets/<name>/classes.txt``, else the ``classes`` of the torchvision class.

    Raises:
        InputError: no such class (the nearest is named), arguments or files; no class names; labels beyond them.
    """

    def __init__(
        self,
        name: str,
        dataset: str,
        root: str,
        splits: Mapping[str, Mapping[str, Any]],
        download: bool = False,
        templates: str = "single",
    ) -> None:
        legal = [c for c in torchvision.datasets.__all__ if isinstance(getattr(torchvision.datasets, c), type)]
        if dataset not in legal:
            raise unknown("torchvision data set", dataset, legal)
        if dataset in UNPICKLE:
            raise InputError(f"{name}: torchvision's {dataset} unpickles a file of its folder, which may run code")
        if not splits:
            raise InputError(f"{name}: splits is empty; it needs train, and test, with their arguments")
        self._make = getattr(torchvision.datasets, dataset)
        self._root = root
        self._splits = {split: dict(arguments) for split, arguments in splits.items()}
        self._download = download
        first = self._open(name, next(iter(self._splits)))
        class_names = catalog.class_names(name) or tuple(getattr(first, "classes", ()))
        if not class_names:
            raise InputError(f"{name}: {dataset} has no class names; write them to datasets/{name}/classes.txt")
        super().__init__(name, class_names, self._splits, (dataset, root), templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in torchvision's order, named ``<split>/<number>``."""
        dataset = self._open(self.name, split)
        labels = _labels(dataset)
        outside = sorted({label for label in labels if not 0 <= label < len(self.class_names)})
        if outside:
            raise InputError(f"{self.name} {split}: labels {outside} are outside the {len(self.class_names)} classes")
        names = tuple(f"{split}/{i:06d}" for i in range(len(labels)))
        return Samples(names, labels, TorchvisionOpener(dataset))

    def _open(self, name: str, split: str) -> Dataset[tuple[Image.Image, int]]:
        kind = self._make.__name__
        try:
            return self._make(root=self._root, download=self._download, **self._splits[split])
        except TypeError as error:
            raise InputError(f"{name}: arguments of {kind} for split {split}: {error}") from error
        except ImportError as error:
            raise InputError(f"{name}: torchvision reads {kind} with {error.name}, which is not installed") from error
        except (RuntimeError, OSError, ValueError) as error:
            hint = "" if self._download else "; set data_root, or data.source.download=true"
            raise InputError(f"{name}: torchvision cannot open {kind} under {self._root}: {error}{hint}") from error


def _labels(dataset: Dataset[tuple[Image.Image, int]]) -> tuple[int, ...]:
    labels = next((vars(dataset)[name] for name in LABEL_ATTRIBUTES if name in vars(dataset)), None)
    if labels is None:
        raise InputError(f"torchvision's {type(dataset).__name__} has no list of labels to draw from")
    return tuple(int(entry[1] if isinstance(entry, tuple) else entry) for entry in labels)
