"""Any folder of images: one sub-folder a class."""

import logging
from pathlib import Path

from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source, refuse_duplicates
from kravl.runtime.errors import InputError, some_of, unknown
from kravl.runtime.files import no_folder

logger = logging.getLogger(__name__)

ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)


class ImageFolder(Source):
    """Images by class folder: ``root/<class>/<image>`` to train on, ``test/<class>/<image>`` to evaluate on.

    Classes are the sub-folders of the training folder, sorted by name; the other folders may lack some of them.

    Args:
        root: the training images, unless ``train`` names a folder under it.
        test: a folder under ``root``, or a path of its own; None if there are no test images.
        train, val: likewise.

    Raises:
        InputError: a folder is missing, holds no class folder, or is not a class that is trained on.
    """

    def __init__(
        self,
        root: str | None,
        test: str | None = None,
        train: str | None = None,
        val: str | None = None,
        name: str = "folder",
        templates: str = "single",
    ) -> None:
        if root is None:
            raise InputError(f"{name}: no folder of images is given; pass data.root=...")
        self._root = Path(root)
        if not self._root.is_dir():
            raise InputError(f"{name}: root={root}: {no_folder(self._root)}")
        given = {"train": train or ".", "val": val, "test": test}
        self._folders = {
            split: self._under_root(name, split, path) for split, path in given.items() if path is not None
        }
        trained = self._folders["train"].resolve()
        for split in ("val", "test"):
            if split in self._folders and trained in self._folders[split].resolve().parents:
                raise InputError(
                    f"{name}: the {split} folder {self._folders[split]} lies inside the training folder {trained}, "
                    "where each sub-folder is a class; name the training folder with data.train=..."
                )
        identity = (str(trained), str(self._folders.get("test", "")))
        classes = class_folders(name, self._folders["train"])
        super().__init__(name, classes, self._folders, identity, templates=templates)

    def samples(self, split: str) -> Samples:
        """The images of the folder, sorted by class, then by file name."""
        present = class_folders(self.name, self._folders[split])
        for folder in present:
            if folder not in self.class_ids:
                raise unknown(f"class folder in {self._folders[split]}", folder, self.class_ids)
        return folder_samples(self._folders[split], {c: i for i, c in enumerate(self.class_ids) if c in present})

    def _under_root(self, name: str, split: str, path: str) -> Path:
        under = self._root / path
        for folder in (under, Path(path)):
            if folder.is_dir():
                return folder
        raise InputError(f"{name}: {split}={path}: {no_folder(under)}; give a folder below root, or a path of its own")


def class_folders(name: str, root: Path) -> list[str]:
    """Names of the sub-folders of ``root``, sorted; hidden ones are left out.

    Raises:
        InputError: there is none, or two are the same but for case, ``_`` and spaces.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{name}: {root} holds no class folders; expected {root}/<class>/<image>")
    refuse_duplicates(f"{name}: {root}", folders)
    return folders


def folder_samples(root: Path, label_of: dict[str, int]) -> Samples:
    """The images of ``root/<class>/`` for each class of ``label_of``, sorted by name within a class.

    Raises:
        InputError: a class folder is missing or holds no image; all such are named.
    """
    names: list[str] = []
    labels: list[int] = []
    skipped: list[str] = []
    empty: list[str] = []
    for folder, label in label_of.items():
        path = root / folder
        files = sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else []
        images = [file for file in files if Path(file).suffix.lower() in ENDINGS]
        skipped += [f"{folder}/{file}" for file in files if Path(file).suffix.lower() not in ENDINGS]
        names += [f"{folder}/{file}" for file in images]
        labels += [label] * len(images)
        if not images:
            empty.append(folder)
    if empty:
        raise InputError(f"{root}: {len(empty)} class folders are missing or hold no image: {some_of(empty)}")
    if skipped:
        logger.warning("%s: %d files are no images by their ending, e.g. %s", root, len(skipped), skipped[0])
    return Samples(tuple(names), tuple(labels), FileOpener(root, names))
