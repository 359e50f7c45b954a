"""ObjectNet (Barbu et al., NeurIPS 2019, https://objectnet.dev): its 113 classes that ImageNet has too."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kravl.data.catalog import find_folder
from kravl.data.classes import read_text
from kravl.data.images import Opener
from kravl.data.source import Samples, Source
from kravl.data.sources.folder import folder_samples
from kravl.data.sources.imagenet import wordnet_classes
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json

BORDER = 2  # pixels; a red frame of one pixel marks the images as test data, and resampling smears it
MAPPINGS = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "imagenet_to_label_2012_v2",
    "pytorch_to_imagenet_2012_id.json",
)


@dataclass(frozen=True)
class BorderlessOpener(Opener):
    """Images without their outermost two pixels."""

    opener: Opener

    def __call__(self, position: int) -> Image.Image:
        image = self.opener(position)
        return image.crop((BORDER, BORDER, image.width - BORDER, image.height - BORDER))

    def check(self, position: int) -> None:
        self.opener.check(position)

    def files(self, position: int) -> Sequence[Path]:
        return self.opener.files(position)


class ObjectNet(Source):
    """Test images in ``images/<class>``, for models that know ImageNet's classes.

    A class may be several of ImageNet's; the best of them counts, as in WiSE-FT. Which ones they are is read from the
    archive's own ``mappings``.

    Raises:
        InputError: no such folder, or mappings that are missing or do not fit each other.
    """

    def __init__(self, root: str, name: str = "objectnet", templates: str = "single") -> None:
        folder = find_folder(name, root)
        self._root = folder / "images"
        label_of_folder, groups = _mappings(folder / "mappings")
        folders = sorted(f for f, label in label_of_folder.items() if label in groups)
        self._groups = tuple(groups[label_of_folder[f]] for f in folders)
        names = [label_of_folder[f].lower() for f in folders]
        super().__init__(name, folders, ("test",), (str(folder.resolve()),), names, templates)

    def trained_ids(self) -> tuple[tuple[str, ...], ...]:
        """The WordNet ids of ImageNet's classes that each class comprises."""
        return self._groups

    def samples(self, split: str) -> Samples:
        """The images sorted by class folder, then by file name."""
        framed = folder_samples(self._root, {f: i for i, f in enumerate(self.class_ids)})
        return Samples(framed.names, framed.labels, BorderlessOpener(framed.opener))


def _mappings(folder: Path) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Folder -> ObjectNet's label, and label -> WordNet ids of the ImageNet classes that it comprises."""
    missing = [name for name in MAPPINGS if not (folder / name).is_file()]
    if missing:
        raise InputError(f"objectnet: {folder} lacks {', '.join(missing)}, which come with the archive")
    lines = read_text(folder / MAPPINGS[2]).splitlines()
    label_of_folder, comprised, label_of_place = (_texts(folder / MAPPINGS[i]) for i in (0, 1, 3))
    # ImageNet's own numbers (lines of the third file) are not the ranks of the sorted WordNet ids
    ids, _ = wordnet_classes("imagenet")
    if strange := [text for pair in label_of_place.items() for text in pair if not text.isdecimal()]:
        raise InputError(f"objectnet: {folder / MAPPINGS[3]} holds {strange[0][:80]!r}, not the number of a class")
    rank_of_number = {int(number): int(rank) for rank, number in label_of_place.items()}
    rank_of = {line.strip(): rank_of_number.get(i) for i, line in enumerate(lines)}
    groups = {}
    for label, text in comprised.items():
        ranks = [rank_of.get(english) for english in text.split("; ")]
        if not all(rank is not None and rank < len(ids) for rank in ranks) or label not in label_of_folder.values():
            raise InputError(f"objectnet: the mappings in {folder} do not agree about {label!r}")
        groups[label] = tuple(ids[rank] for rank in ranks if rank is not None)
    return label_of_folder, groups


def _texts(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str | int) for value in content.values()):
        raise InputError(f"objectnet: {path} is no mapping of text to text")
    return {key: str(value) for key, value in content.items()}
