"""ImageNet and its natural shifts: class folders named by WordNet id, or, in ImageNet-V2, by label.

Ids and the subsets of ImageNet-A and -R come from timm, English names from open_clip.
"""

import pkgutil

from kravl.data.catalog import existing_folder, find_folder
from kravl.data.source import Samples, Source
from kravl.data.sources.folder import folder_samples
from kravl.runtime.errors import unknown

WAYS = ("subset", "all")
SUBSETS = {"imagenet": "imagenet_synsets", "imagenet_a": "imagenet_a_synsets", "imagenet_r": "imagenet_r_synsets"}


class ImageNet(Source):
    """ILSVRC 2012 (https://arxiv.org/abs/1409.0575): 1000 classes, ``root/train/<wnid>`` and ``root/val/<wnid>``.

    The published validation images are the test images here; there are no others to validate on.
    """

    def __init__(self, root: str, name: str = "imagenet", templates: str = "single") -> None:
        self._root = find_folder(name, root)
        ids, names = wordnet_classes("imagenet")
        super().__init__(name, ids, ("train", "test"), (str(self._root.resolve()),), names, templates)

    def samples(self, split: str) -> Samples:
        """The images sorted by class, then by file name."""
        folder = existing_folder(self.name, self._root / {"train": "train", "test": "val"}[split])
        return folder_samples(folder, {wnid: i for i, wnid in enumerate(self.class_ids)})


class ImageNetShift(Source):
    """Test images in ``root/<wnid>``: ImageNet-Sketch (all 1000 classes), ImageNet-A and -R (200 of them each).

    Args:
        subset: ``imagenet``, ``imagenet_a`` or ``imagenet_r``: which class folders there must be.
        ways: among which classes an image is scored: ``subset``, as published, or ``all`` the 1000.

    Raises:
        InputError: an unknown subset or ``ways``, or no such folder.
    """

    def __init__(
        self, name: str, root: str, subset: str = "imagenet", ways: str = "subset", templates: str = "single"
    ) -> None:
        if ways not in WAYS:
            raise unknown(f"ways of {name}", ways, WAYS)
        if subset not in SUBSETS:
            raise unknown("ImageNet subset", subset, SUBSETS)
        self._root = find_folder(name, root)
        self._folders = wordnet_classes(subset)[0]
        ids, names = wordnet_classes("imagenet" if ways == "all" else subset)
        super().__init__(name, ids, ("test",), (str(self._root.resolve()),), names, templates)

    def samples(self, split: str) -> Samples:
        """The images sorted by class, then by file name."""
        label_of = {wnid: i for i, wnid in enumerate(self.class_ids)}
        return folder_samples(self._root, {wnid: label_of[wnid] for wnid in self._folders})


class ImageNetV2(Source):
    """ImageNet-V2 (https://arxiv.org/abs/1902.10811): test images in ``root/<label>``, label 0 to 999.

    The folders are numbers, so "10" is label 10: sorted as text it would be the third.
    """

    def __init__(self, root: str, name: str = "imagenet_v2", templates: str = "single") -> None:
        self._root = find_folder(name, root)
        ids, names = wordnet_classes("imagenet")
        super().__init__(name, ids, ("test",), (str(self._root.resolve()),), names, templates)

    def samples(self, split: str) -> Samples:
        """The images sorted by label, then by file name."""
        return folder_samples(self._root, {str(label): label for label in range(len(self.class_ids))})


def wordnet_classes(subset: str) -> tuple[list[str], list[str]]:
    """WordNet ids in label order of one of SUBSETS, and what open_clip calls them."""
    import open_clip  # imports torch: a missing folder is reported before

    name_of = dict(zip(_wordnet_ids("imagenet"), open_clip.IMAGENET_CLASSNAMES, strict=True))
    ids = _wordnet_ids(subset)
    return ids, [name_of[wnid] for wnid in ids]


def _wordnet_ids(subset: str) -> list[str]:
    data = pkgutil.get_data("timm.data", f"_info/{SUBSETS[subset]}.txt")
    assert data is not None, "timm ships this list"
    return data.decode().split()
