"""PASCAL VOC 2007 as a single-label task: each annotated object, cut out by its box, is an image.

That is what aTLAS (https://github.com/fredzzhang/atlas), and KRAdapter's lineage after it, call PascalVOC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from kravl.data import catalog
from kravl.data.catalog import find_folder
from kravl.data.classes import read_text
from kravl.data.images import Opener, check_readable, open_rgb
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, some_of
from kravl.runtime.files import refuse_endless

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class BoxOpener(Opener):
    """Parts of the photographs under ``root``."""

    root: Path
    objects: Sequence[tuple[str, Box]]

    def __call__(self, position: int) -> Image.Image:
        number, box = self.objects[position]
        return open_rgb(self.root / f"{number}.jpg").crop(box)

    def check(self, position: int) -> None:
        check_readable(self.root / f"{self.objects[position][0]}.jpg")

    def files(self, position: int) -> Sequence[Path]:
        """The photograph, and the file that says where the object is."""
        number = self.objects[position][0]
        return self.root / f"{number}.jpg", self.root.with_name("Annotations") / f"{number}.xml"


class Voc2007(Source):
    """Every annotated object of 20 classes, split as their photographs are.

    Raises:
        InputError: no such folder, list or annotation, or one that is damaged.
    """

    def __init__(self, root: str, name: str = "voc2007", templates: str = "single") -> None:
        self._folder = find_folder(name, root)
        lists = self._folder / "ImageSets" / "Main"
        classes = sorted({p.name.partition("_")[0] for p in lists.glob("*_test.txt")})
        names = catalog.class_names(name)
        if names is None or len(names) != len(classes):
            raise InputError(f"{name}: {lists} has lists of {len(classes)} classes, datasets/{name}/classes.txt others")
        super().__init__(name, classes, SPLITS, (str(self._folder.resolve()),), names, templates)

    def samples(self, split: str) -> Samples:
        """The objects in the order of the list, then of the annotation; named ``photograph/number of the object``."""
        label_of = {c: i for i, c in enumerate(self.class_ids)}
        path = self._folder / "ImageSets" / "Main" / f"{split}.txt"
        if not path.is_file():
            raise InputError(f"{self.name}: no list {path}")
        objects = [
            (number, i, label, box)
            for number in read_text(path).split()
            for i, (label, box) in enumerate(_objects(self._folder / "Annotations" / f"{number}.xml"))
        ]
        strange = sorted({label for _, _, label, _ in objects} - label_of.keys())
        if strange:
            raise InputError(f"{self.name}: annotated, but without a list: {some_of(strange)}")
        opener = BoxOpener(self._folder / "JPEGImages", [(number, box) for number, _, _, box in objects])
        names = tuple(f"{number}/{i}" for number, i, _, _ in objects)
        return Samples(names, tuple(label_of[label] for _, _, label, _ in objects), opener)


def _objects(path: Path) -> list[tuple[str, Box]]:
    """Class and box of each object of an annotation."""
    refuse_endless(path)
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return [(thing.findtext("name", ""), _box(path, thing)) for thing in objects]


def _box(path: Path, thing: ElementTree.Element) -> Box:
    try:
        left, top, right, bottom = (int(thing.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise InputError(f"{path}: an object without a complete box: {error}") from error
    return left, top, right, bottom
