"""Class folders without a published split, divided at random as aTLAS does (https://github.com/fredzzhang/atlas)."""

import re
from collections.abc import Sequence

import torch

from kravl.data.catalog import find_folder
from kravl.data.source import Samples, Source
from kravl.data.sources.folder import class_folders, folder_samples
from kravl.runtime.errors import InputError


def without_number(folder: str) -> str:
    """What the class is called: no number before it, no ``-101`` after it, spaces for hyphens and ``_``."""
    name = re.sub(r"^\d+\.", "", folder)
    return re.sub(r"-101$", "", name).replace("-", " ").replace("_", " ")


class RandomHoldout(Source):
    """Images in ``images/<class>``; a random share of all of them is test, the rest train.

    The order is that of torchvision's Caltech256 and Caltech101, the division that of torch's ``random_split`` under
    seed 0, aTLAS's default. The lineage never published which images those are.

    Args:
        root: the data root, or the set's own folder; see `catalog.find_folder`.
        left_out: class folders to leave out.
        train_share: of all images.

    Raises:
        InputError: no such folder, or a share that is not between 0 and 1.
    """

    def __init__(
        self,
        name: str,
        root: str,
        images: str,
        left_out: Sequence[str] = (),
        train_share: float = 0.8,
        templates: str = "single",
    ) -> None:
        if not 0 < train_share < 1:
            raise InputError(f"{name}: train_share is {train_share}; it must be between 0 and 1")
        self._folder = find_folder(name, root) / images
        self._train_share = train_share
        classes = [c for c in class_folders(name, self._folder) if c not in left_out]
        names = [without_number(c) for c in classes]
        identity = (str(self._folder.resolve()), str(train_share))
        super().__init__(name, classes, ("train", "test"), identity, names, templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of the random division."""
        everything = folder_samples(self._folder, {c: i for i, c in enumerate(self.class_ids)})
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0)).tolist()
        num_train = int(len(everything) * self._train_share)
        return everything.subset(order[:num_train] if split == "train" else order[num_train:])
