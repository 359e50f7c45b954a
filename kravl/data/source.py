"""The contract of a data set: named classes, prompt templates, and labelled images by split."""

import hashlib
import json
import os
import unicodedata
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from kravl.data import catalog
from kravl.data.images import FileOpener, Opener
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.shared import Key, is_sharing, shared

CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Cs: bytes that are not UTF-8
BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs by their category that are drawn as nothing
# what people call the splits, in lower case
SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev", "eval", "evaluation"), "val"
)


@dataclass(frozen=True)
class Samples:
    """Images with labels; an image is read on request.

    Args:
        names: paths relative to the set's root, with ``/``; for a set in memory, ``split/number``.
        labels: positions in the set's class list.
        opener: reads an image by its position in the samples of which this is a subset.
        positions: those positions; None if this is not a subset.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    opener: Opener
    positions: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> "Samples":
        """The samples at ``indices``, in that order."""
        names = tuple(self.names[i] for i in indices)
        labels = tuple(self.labels[i] for i in indices)
        return replace(self, names=names, labels=labels, positions=tuple(self._position(i) for i in indices))

    def image(self, index: int) -> Image.Image:
        """The image at ``index`` as RGB.

        Raises:
            InputError: it cannot be read; with its path and the reason.
        """
        return self.opener(self._position(index))

    def check(self, index: int) -> None:
        """Raise InputError if the image at ``index`` cannot be read."""
        if not is_sharing() or (image := self.identity(index)) is None:
            self.opener.check(self._position(index))
        else:
            shared(("readable", *image), lambda: self._is_readable(index))

    def _is_readable(self, index: int) -> bool:
        self.opener.check(self._position(index))
        return True

    def file(self, index: int) -> Path | None:
        """The file that the image at ``index`` is read from; None if it is made in another way."""
        return self.opener.path(self._position(index)) if isinstance(self.opener, FileOpener) else None

    def files(self) -> Iterator[Path]:
        """The files that the images are read from, in order; a file of many images comes once for each of them."""
        if hasattr(self.opener, "files"):  # a package's own opener need not say
            for index in range(len(self)):
                yield from self.opener.files(self._position(index))

    def identity(self, index: int) -> Key | None:
        """What decides the pixels of the image at ``index``, see `Opener.identity`; None where that is not known."""
        if "identity" not in vars(type(self.opener)):  # of a package, or reads in a way of its own what it inherits
            return None
        return self.opener.identity(self._position(index))

    def sha256(self) -> str:
        """Hex digest of the lines ``name<tab>label``, names in NFC: which images these are, in which order."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self.labels, strict=True):
            # a file name need not be UTF-8; its bytes count
            digest.update(f"{composed_form(name)}\t{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _position(self, index: int) -> int:
        return index if self.positions is None else self.positions[index]


class Source(ABC):
    """A data set with a fixed class list.

    Args:
        name: its folder under ``datasets``, if there is one.
        splits: those of ``train``, ``val`` and ``test`` that it has.
        class_ids: what evaluation sets are matched by, in label order.
        class_names: what the ids are called in a prompt; the ids themselves, with spaces for ``_``, if None.
        templates: what `catalog.templates` takes.
        identity: two sources with the same one have the same images: class, folder, domain, ...

    Attributes:
        descriptions: for each class its own prompts, in place of the templates'; None if it has none.

    Raises:
        InputError: no class, two ids that are the same, a name that is empty or has control characters, or what
            `catalog.templates` raises.
    """

    def __init__(
        self,
        name: str,
        class_ids: Sequence[str],
        splits: Collection[str],
        identity: tuple[str, ...],
        class_names: Sequence[str] | None = None,
        templates: str = "single",
    ) -> None:
        if not class_ids:
            raise InputError(f"{name}: no classes")
        self.name = name
        self.splits = tuple(splits)
        # two wnids may share one English name (ImageNet has two pairs), two folders may not
        refuse_duplicates(name, class_ids)
        refuse_control(name, [*class_ids, *(class_names or ())])
        self.class_ids = tuple(class_ids)
        self.class_names = readable_names(name, class_ids if class_names is None else class_names)
        assert len(self.class_names) == len(self.class_ids)
        self.identity = (type(self).__name__, *identity)
        self.templates = catalog.templates(name, templates)
        self.divided = False  # whether kravl itself decided which images are tested on
        self.descriptions: tuple[tuple[str, ...], ...] | None = None

    @property
    def prompts(self) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        """What a text tower is told of the classes: templates, or the descriptions of each."""
        return self.templates if self.descriptions is None else self.descriptions

    def prompt_record(self) -> list[str]:
        """The templates; of descriptions, which may be many, the number and a digest, by which two lists differ."""
        if self.descriptions is None:
            return list(self.templates)
        digest = hashlib.sha256(json.dumps(self.descriptions).encode()).hexdigest()
        return [f"{sum(map(len, self.descriptions))} descriptions, sha256 {digest[:16]}"]

    def split(self, name: str) -> Samples:
        """The images of ``train``, ``val`` or ``test``.

        Raises:
            InputError: the set has no such split, or its files are not as expected.
        """
        if name not in self.splits:
            raise unknown(f"split of {self.name}", name, self.splits)
        return self.samples(name)

    def split_sha256(self, drawn: Samples) -> str:
        """Hex digest of the ``drawn`` training images and, where kravl held them out, of the test images."""
        if not self.divided:
            return drawn.sha256()
        return hashlib.sha256(f"{drawn.sha256()}\n{self.split('test').sha256()}\n".encode()).hexdigest()

    @abstractmethod
    def samples(self, split: str) -> Samples:
        """The images of one of ``splits``; called by `split`."""

    def overlaps(self, other: "Source") -> bool:
        """Whether the two hold the same images."""
        return self.identity == other.identity

    def trained_ids(self) -> tuple[tuple[str, ...], ...]:
        """For each class the ids of the trained classes that it comprises: by default its own."""
        return tuple((class_id,) for class_id in self.class_ids)

    def drawn_from(self) -> "Source":
        """The set that few-shot images are drawn from; `keep` selects those of this one."""
        return self

    def keep(self, samples: Samples) -> Samples:
        """Those of the ``samples`` from `drawn_from` that belong to this set, with its labels."""
        return samples


def composed_form(name: str) -> str:
    """The name in Unicode's NFC: macOS writes é as two characters, and other systems as one."""
    return unicodedata.normalize("NFC", name)


def readable_name(name: str) -> str:
    """A class name as a person would write it in a sentence: spaces for ``_``, no doubled or outer spaces."""
    return " ".join(composed_form(name).replace("_", " ").split())


def is_seen(text: str) -> bool:
    """Whether ``text`` has a character that can be seen."""
    return any(unicodedata.category(character)[0] not in "CZ" and character not in BLANK for character in text)


def readable_names(where: str, names: Iterable[str]) -> tuple[str, ...]:
    """`readable_name` of each. Raises InputError for one of which nothing can be seen: a prompt would name no class."""
    readable: list[str] = []
    for i, name in enumerate(names):
        readable.append(readable_name(name))
        if not is_seen(readable[-1]):
            raise InputError(f"{where}: the name of class {i}, {name!r}, is empty in a prompt; give it a name")
    return tuple(readable)


def refuse_control(where: str, names: Iterable[str]) -> None:
    """Raise InputError for a name with a control character, a line break or bytes that are not UTF-8.

    It goes to terminals, tables, pages and prompts.
    """
    for name in names:
        if any(unicodedata.category(character) in CONTROL for character in name):
            raise InputError(f"{where}: the name {name[:80]!r} holds a control character, or is not UTF-8; rename it")


def refuse_outside(where: str, path: str) -> None:
    """Raise InputError for a listed path that is absolute or goes up: it could name any file of this machine."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InputError(f"{where}: {path[:200]!r} leaves the image folder; paths are relative to it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:  # half a character of JSON's
        raise InputError(f"{where}: {path[:200]!a} names no file: {error.reason}") from error


def refuse_duplicates(where: str, names: Iterable[str]) -> None:
    """Raise InputError if two ``names`` differ only in case, ``_`` and spaces."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[readable_name(name).casefold()].append(name)
    duplicates = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if duplicates:
        raise InputError(f"{where}: duplicate class names: {'; '.join(duplicates)}; rename or merge them")
