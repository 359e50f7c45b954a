"""CUB-200-2011 as its archive is laid out: lists of image numbers, paths, classes and training flags."""

from pathlib import Path

from kravl.data.catalog import find_folder
from kravl.data.classes import read_text
from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source, refuse_outside
from kravl.data.sources.random_holdout import without_number
from kravl.runtime.errors import InputError, unknown

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")


class Cub200(Source):
    """200 species of birds, split by the published ``train_test_split.txt``.

    Raises:
        InputError: no such folder or list, or lists that do not number the same images.
    """

    def __init__(self, root: str, name: str = "cub200", templates: str = "single") -> None:
        folder = find_folder(name, root)
        self._root = folder / "images"
        columns = []
        for file in (*LISTS, "classes.txt"):
            if not (folder / file).is_file():
                raise InputError(f"{name}: no list {folder / file}")
            columns.append(_numbered(folder / file))
        *(paths, labels, trained), classes = columns
        if not paths.keys() == labels.keys() == trained.keys():
            raise InputError(f"{name}: {', '.join(LISTS)} in {folder} do not number the same images")
        label_of = {number: i for i, number in enumerate(classes)}
        for number, path in paths.items():
            if labels[number].strip() not in label_of:
                raise unknown(f"class of image {number} of {name}:", labels[number].strip(), classes)
            refuse_outside(name, path)
        self._records = [(paths[i].strip(), label_of[labels[i].strip()], trained[i].strip() == "1") for i in paths]
        ids = [classes[number].strip() for number in classes]
        names = [without_number(c) for c in ids]
        super().__init__(name, ids, ("train", "test"), (str(folder.resolve()),), names, templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of ``images.txt``."""
        records = [(path, label) for path, label, trained in self._records if trained == (split == "train")]
        names = tuple(path for path, _ in records)
        return Samples(names, tuple(label for _, label in records), FileOpener(self._root, names))


def _numbered(path: Path) -> dict[str, str]:
    """Number -> text after it on its line."""
    rows = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    if wrong := [row for row in rows if len(row) != 2]:
        raise InputError(f"{path}: {wrong[0][0][:80]!r} is not a number and what it stands for")
    return {number: text for number, text in rows}  # noqa: C416 (rows are lists)
