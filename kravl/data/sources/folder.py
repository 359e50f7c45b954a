"""Any folder of images: one sub-folder a class."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kravl.data.holdout import check_share, hold_out, say_held_out
from kravl.data.images import FileOpener, is_image_file
from kravl.data.source import SPLIT_OF, Samples, Source, composed_form, refuse_duplicates
from kravl.data.tree import files_in, find_images, holds_files, refuse_without_images, say_left_out, subfolders
from kravl.runtime.errors import InputError, some_of, unknown
from kravl.runtime.files import no_folder

logger = logging.getLogger(__name__)

# words that a split's folder may be called by besides the split
AROUND = ("set", "image", "images", "img", "imgs", "photos", "pictures", "data", "dataset", "folder", "split")
Classes = dict[str, list[str]]  # class -> its folders: two where one name is written in two forms of Unicode


class ImageFolder(Source):
    """Images by class folder, at any depth: ``root/<class>/...`` to train on, ``test/<class>/...`` to evaluate on.

    Classes are the sub-folders of the training folder, sorted by name; the other folders may lack some of them. Empty
    folders and those of the system are passed over with a line, and so are files that are no images.

    Args:
        root: the training images, unless ``train`` names a folder under it, or ``root`` itself holds class folders in
            ``train`` and ``test`` or ``val``.
        test: a folder under ``root``, or a path of its own; None for that of ``root``, if it has one.
        train, val: likewise.
        test_share: of each class is held out to test on where there is no test folder; None holds out nothing.
        test_seed: decides which images those are.

    Raises:
        InputError: a folder is missing, holds no class folder, or is not a class that is trained on.
    """

    def __init__(  # noqa: PLR0913 (each is a setting of data.source)
        self,
        root: str | None,
        test: str | None = None,
        train: str | None = None,
        val: str | None = None,
        name: str = "folder",
        templates: str = "single",
        test_share: float | None = None,
        test_seed: int = 0,
    ) -> None:
        if root is None:
            raise InputError(f"{name}: no folder of images is given; pass data.root=...")
        self._root = Path(root)
        if not self._root.is_dir():
            raise InputError(f"{name}: root={root}: {no_folder(self._root)}")
        given = {split: path for split, path in (("train", train), ("val", val), ("test", test)) if path is not None}
        paths = {"train": "."} | (_splits_found(name, self._root, given) if test is None else {}) | given
        self._folders = {split: self._under_root(name, split, path) for split, path in paths.items()}
        _refuse_nested(name, self._folders)
        self._share, self._seed = (None, 0) if "test" in self._folders else (test_share, test_seed)
        if self._share is not None:
            check_share(name, self._share)
            say_held_out(name, self._share, self._seed, "data.test names a folder instead")
        self._read: dict[Path, Samples] = {}
        self._present = {folder: _classes(name, folder) for folder in dict.fromkeys(self._folders.values())}
        held_out = "" if self._share is None else f"{self._share} {self._seed}"
        identity = (str(self._folders["train"].resolve()), str(self._folders.get("test", held_out)))
        splits = [*self._folders, *(["test"] if held_out else [])]
        super().__init__(name, list(self._present[self._folders["train"]]), splits, identity, templates=templates)
        self.divided = bool(held_out)

    def samples(self, split: str) -> Samples:
        """The images of the folder, sorted by class, then by sub-folder, then by file name."""
        folder = self._folders.get(split, self._folders["train"])
        if folder not in self._read:
            self._read[folder] = self._below(folder)
        if self._share is None or split == "val":
            return self._read[folder]
        return hold_out(self._read[folder], self._share, self._seed)[split == "test"]

    def _below(self, folder: Path) -> Samples:
        present = self._present[folder]
        for class_id in present:
            if class_id not in self.class_ids:
                raise unknown(f"class folder in {folder}", class_id, self.class_ids)
        return _deep_samples(folder, {i: present[c] for i, c in enumerate(self.class_ids) if c in present})

    def _under_root(self, name: str, split: str, path: str) -> Path:
        under = self._root / path
        for folder in (under, Path(path)):
            if folder.is_dir():
                return folder
        raise InputError(f"{name}: {split}={path}: {no_folder(under)}; give a folder below root, or a path of its own")


def class_folders(name: str, root: Path) -> list[str]:
    """Names of the sub-folders of ``root``, sorted; hidden ones and those of the system are left out.

    Raises:
        InputError: there is none, or two are the same but for case, ``_`` and spaces.
    """
    folders = sorted(subfolders(root)[0])
    if not folders:
        raise InputError(f"{name}: {root} holds no class folders; expected {root}/<class>/<image>")
    refuse_duplicates(f"{name}: {root}", folders)
    return folders


def folder_samples(root: Path, label_of: Mapping[str, int]) -> Samples:
    """The images of ``root/<class>/`` for each class of ``label_of``, sorted by name within a class.

    This is how published sets are laid out: what lies in a folder within a class folder is none of their images.

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
        images = [file for file in files if is_image_file(path / file)]
        taken = set(images)
        skipped += [f"{folder}/{file}" for file in files if file not in taken]
        names += [f"{folder}/{file}" for file in images]
        labels += [label] * len(images)
        if not images:
            empty.append(folder)
    if empty:
        raise InputError(f"{root}: {len(empty)} class folders are missing or hold no image: {some_of(empty)}")
    say_left_out(root, skipped, ())
    return Samples(tuple(names), tuple(labels), FileOpener(root, names))


def _deep_samples(root: Path, folders_of: Mapping[int, list[str]]) -> Samples:
    """The images below the folders of each label, as `find_images` orders them.

    Raises:
        InputError: a class has files but no image; all such are named. Or two classes hold one file, through links.
    """
    names: list[str] = []
    labels: list[int] = []
    linked = False
    others: list[str] = []
    passed: list[str] = []
    without: list[str] = []
    for label, folders in folders_of.items():
        before = len(names)
        for folder in folders:
            found = find_images(root / folder)
            linked |= found.linked
            names += [f"{folder}/{path}" for path in found.images]
            others += [f"{folder}/{path}" for path in found.others]
            passed += [f"{folder}/{path}" for path in found.passed]
        labels += [label] * (len(names) - before)
        if len(names) == before:
            without += folders
    if without:
        refuse_without_images(root, without, others)
    say_left_out(root, others, passed)
    _refuse_shared(root, names if linked else (), labels)  # to resolve every path takes time
    return Samples(tuple(names), tuple(labels), FileOpener(root, names))


def _refuse_shared(root: Path, names: Sequence[str], labels: Sequence[int]) -> None:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        other = first.setdefault(os.path.realpath(root / name), i)
        if labels[other] != labels[i]:
            raise InputError(
                f"{root}: {names[other]} and {name} are one file in two classes, through a link; remove one of them"
            )


def _classes(name: str, root: Path) -> Classes:
    """The classes of ``root``, sorted, with a line for what belongs to none of them.

    Raises:
        InputError: there is none, or two are the same but for case, ``_`` and spaces.
    """
    folders, passed = subfolders(root)
    empty = [folder for folder in folders if not holds_files(root / folder)]
    classes: Classes = {}
    for folder in folders:
        if folder not in empty:
            classes.setdefault(composed_form(folder), []).append(folder)
    if not classes:
        raise InputError(f"{name}: {root} holds no class folders; expected {root}/<class>/<image>")
    refuse_duplicates(f"{name}: {root}", classes)
    say_left_out(root, (), [*(f"{folder} (empty)" for folder in empty), *passed])
    if beside := files_in(root):
        logger.warning("%s: %d files belong to no class folder, e.g. %s", root, len(beside), beside[0])
    return classes


def _splits_found(name: str, root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The folders in ``root`` that are its splits by name and hold class folders; none where ``root`` holds classes.

    Raises:
        InputError: two folders of one split, or folders of splits that hold images without classes.
    """
    folders = subfolders(root)[0]
    named = _named_splits(folders)
    found: dict[str, str] = {}
    for exact in (True, False):  # train rather than train_images beside it
        taken = set(found)
        for folder, split in named.items():
            if (folder.lower() in SPLIT_OF) != exact or split in taken or not _holds_classes(root / folder):
                continue
            if found.setdefault(split, folder) != folder and split not in given:
                raise InputError(f"{name}: {root} holds {found[split]} and {folder}; name one with data.{split}=...")
    if "train" not in {**found, **given} or not ({"val", "test"} & found.keys() or len(named) == len(folders)):
        return {} if "train" in given else _splits_below(name, root, folders, found)
    if "test" not in found and "val" in found and "val" not in given:
        found["test"] = found.pop("val")  # as of ImageNet
    used = {**found, **given}
    unused = [folder for folder in folders if folder not in used.values()]
    unused += [file for file in files_in(root) if is_image_file(root / file)]
    logger.info(
        "%s: %s%s (data.train, data.val, data.test name others)",
        name,
        ", ".join(f"{split} is {root / used[split]}" for split in ("train", "val", "test") if split in used),
        f"; not used: {some_of(unused)}" if unused else "",
    )
    return found


def _named_splits(folders: Sequence[str]) -> dict[str, str]:
    """Folder -> split, of those whose names mean one: train, test_set, images_val, train2017, TrainData."""
    named: dict[str, str] = {}
    for folder in folders:
        words = [word.lower() for word in re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))]
        left = [word.removesuffix("set") for word in words if word not in AROUND]
        if len(left) == 1 and left[0] in SPLIT_OF:
            named[folder] = SPLIT_OF[left[0]]
    return named


def _divides(folders: Sequence[str]) -> bool:
    """Whether one is named as a training folder and another as one to evaluate on."""
    splits = set(_named_splits(folders).values())
    return "train" in splits and len(splits) > 1


def _refuse_loose(name: str, root: Path, folders: Sequence[str], found: Mapping[str, str]) -> None:
    """Raise InputError where folders are named like splits but are not laid out like them: they are no classes."""
    named = _named_splits(folders)
    if named and (len(named) == len(folders) or _divides(folders)):
        has = f"class folders in {found['train']} only" if "train" in found else "no class folders in a training folder"
        raise InputError(
            f"{name}: {root} holds {', '.join(named)}, but {has}; expected "
            f"{root}/train/<class>/<image> and no images beside the class folders; data.train=... names a "
            "folder of class folders, and data.train=. takes each folder here for a class"
        )


def _splits_below(name: str, root: Path, folders: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """The splits in the only folder of ``root``; none where its folders hold none.

    Raises:
        InputError: one folder of several holds splits, or class folders do, or what `_refuse_loose` raises.
    """
    _refuse_loose(name, root, folders, found)
    for folder in folders:
        inner = subfolders(root / folder)[0]
        if not _divides(inner):
            continue
        splits = [each for each in inner if _named_splits([each])]
        if not any(_holds_classes(root / folder / each) for each in splits):
            raise InputError(
                f"{name}: {root / folder} holds {', '.join(splits)}: the splits lie in the class folders, where "
                f"kravl reads {root}/<split>/<class>; move them, or list the images in a table (data=table); "
                "data.train=. takes all of them for training images"
            )
        if len(folders) > 1:
            raise InputError(
                f"{name}: {root / folder} holds {', '.join(splits)}, so that {root} holds no classes; pass "
                f"data.root={root / folder}, or data.train=. to take each folder of {root} for a class"
            )
        return {split: f"{folder}/{path}" for split, path in _splits_found(name, root / folder, {}).items()}
    return {}


def _holds_classes(folder: Path) -> bool:
    """Whether there are folders in it and no images beside them."""
    return bool(subfolders(folder)[0]) and not any(is_image_file(folder / file) for file in files_in(folder))


def _refuse_nested(name: str, folders: Mapping[str, Path]) -> None:
    trained = folders["train"].resolve()
    for split in ("val", "test"):
        if split in folders and trained in folders[split].resolve().parents:
            raise InputError(
                f"{name}: the {split} folder {folders[split]} lies inside the training folder {trained}, "
                "where each sub-folder is a class; name the training folder with data.train=..."
            )
