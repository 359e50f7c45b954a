"""Sets whose official splits are text files, one image per line: FGVC-Aircraft, DTD, Food-101, RESISC45."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from kravl.data.catalog import find_folder
from kravl.data.classes import read_text
from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source, refuse_outside
from kravl.runtime.errors import InputError, some_of, unknown

# where a line names its class -> the image's path and the class that it gives
CLASS_FROM: dict[str, Callable[[str], tuple[str, str]]] = {
    "folder": lambda line: (line, str(PurePosixPath(line).parent)),  # banded/banded_0002.jpg
    "line": lambda line: (line.partition(" ")[0], line.partition(" ")[2].strip()),  # 1025794 707-320
    "file": lambda line: (f"{line.rpartition('_')[0]}/{line}", line.rpartition("_")[0]),  # airplane_001.jpg
}


class ListFiles(Source):
    """Images under ``images``, split by lists.

    Args:
        root: the data root, or the set's own folder; see `catalog.find_folder`.
        lists: for train, val and test, as far as they exist, a text file in the set's folder; as ``classes`` one of the
            classes in label order, by default those listed, sorted.
        images: path of an image within the set's folder, with ``{}`` for what the list says.
        class_from: ``folder`` (a line is <class>/<image>), ``line`` (<image> <class>) or ``file`` (<class>_<number>,
            in the folder <class>).

    Raises:
        InputError: an unknown ``class_from``, no such folder or list, a path that leaves the folder, or a class that is
            not among ``classes``.
    """

    def __init__(
        self,
        name: str,
        root: str,
        lists: Mapping[str, str],
        images: str = "images/{}",
        class_from: str = "folder",
        templates: str = "single",
    ) -> None:
        if class_from not in CLASS_FROM:
            raise unknown(f"class_from of {name}", class_from, CLASS_FROM)
        self._root = find_folder(name, root)
        read = {kind: _lines(self._root / file) for kind, file in lists.items()}
        given = read.pop("classes", None)
        rows = {split: [CLASS_FROM[class_from](line) for line in lines] for split, lines in read.items()}
        self._names = {split: tuple(images.format(path) for path, _ in entries) for split, entries in rows.items()}
        self._classes = {split: [c for _, c in entries] for split, entries in rows.items()}
        listed = sorted({c for entries in self._classes.values() for c in entries})
        ids = listed if given is None else given
        _refuse(name, [path for paths in self._names.values() for path in paths], set(listed) - set(ids))
        identity = (str(self._root.resolve()), *lists.values())
        super().__init__(name, ids, list(read), identity, templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of the list."""
        label_of = {c: i for i, c in enumerate(self.class_ids)}
        labels = tuple(label_of[c] for c in self._classes[split])
        return Samples(self._names[split], labels, FileOpener(self._root, self._names[split]))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"no list {path}; set data_root, or the root of this set")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _refuse(name: str, paths: list[str], strange: set[str]) -> None:
    for path in paths:
        refuse_outside(name, path)
    if strange:
        raise InputError(f"{name}: listed, but not among the classes: {some_of(sorted(strange))}")
