"""A data set of the Hugging Face hub, or one saved on disk, through their `datasets` library (extra ``kravl[hf]``)."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kravl.data import catalog
from kravl.data.images import Opener, decode_rgb, open_rgb
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, first_line, unknown

SAFE = 4  # the first release that runs no script of a data set
Rows = Any  # a datasets.Dataset: the library is an extra


@dataclass(frozen=True)
class RowOpener(Opener):
    """Images in the column ``image`` of ``rows``, left undecoded by the library."""

    rows: Rows
    image: str

    def __call__(self, position: int) -> Image.Image:
        stored = self.rows[position][self.image]
        if stored["bytes"] is None:
            return open_rgb(Path(stored["path"]))
        return decode_rgb(stored["bytes"], stored["path"] or f"row {position}")

    def files(self, position: int) -> Sequence[Path]:
        """Those of the library's tables that hold ``rows``."""
        return [Path(file["filename"]) for file in self.rows.cache_files]


class HuggingFace(Source):
    """The data set ``path``.

    Args:
        path: a name such as ``owner/name``, a folder of images, or one that ``save_to_disk`` wrote.
        splits: for train, val and test, as far as they exist, the library's split, such as ``train[:90%]``.
        config: which configuration of a set that has several.
        image, label: the columns.

    Class names are the lines of ``datasets/<name>/classes.txt``, else those of the label column, else its values.

    Raises:
        InputError: the library is not installed, it cannot open the set, or a column is missing or of another kind.
    """

    def __init__(
        self,
        path: str,
        splits: Mapping[str, str],
        config: str | None = None,
        image: str = "image",
        label: str = "label",
        templates: str = "single",
    ) -> None:
        name = Path(path).name
        if not splits:
            raise InputError(f"{path}: splits is empty; it needs train, and test, with what the library calls them")
        self._image, self._label = image, label
        self._rows = {split: _open(path, config, given) for split, given in splits.items()}
        for rows in self._rows.values():
            self._check_columns(path, rows)
        self._values = _values(next(iter(self._rows.values())), label)
        names = catalog.class_names(name) or _names(next(iter(self._rows.values())), label)
        if len(names) != len(self._values):
            raise InputError(f"datasets/{name}/classes.txt has {len(names)} names for {len(self._values)} classes")
        super().__init__(name, names, list(splits), (path, config or ""), templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in the library's order, named ``<split>/<number>``."""
        rows = self._rows[split]
        label_of = {value: i for i, value in enumerate(self._values)}
        values = rows[self._label][:]
        for value in values:
            if value not in label_of:
                raise unknown(f"label of {self.name} {split}", value, map(str, label_of))
        names = tuple(f"{split}/{i:06d}" for i in range(len(rows)))
        undecoded = rows.cast_column(self._image, _library().Image(decode=False))
        return Samples(names, tuple(label_of[value] for value in values), RowOpener(undecoded, self._image))

    def _check_columns(self, path: str, rows: Rows) -> None:
        for column, setting in ((self._image, "image"), (self._label, "label")):
            if column not in rows.column_names:
                raise unknown(f"column of {path} (data.source.{setting})", column, rows.column_names)
        if not isinstance(rows.features[self._image], _library().Image):
            kind = type(rows.features[self._image]).__name__
            raise InputError(f"{path}: the column {self._image!r} holds no images but {kind}; set data.source.image")


def _values(rows: Rows, label: str) -> list[Any]:
    """The values that stand for the classes, in label order: 0, 1, ... where the column has names for them."""
    feature = rows.features[label]
    if isinstance(feature, _library().ClassLabel):
        return list(range(feature.num_classes))
    return sorted(set(rows[label][:]))


def _names(rows: Rows, label: str) -> list[str]:
    feature = rows.features[label]
    return feature.names if isinstance(feature, _library().ClassLabel) else [str(v) for v in _values(rows, label)]


def _open(path: str, config: str | None, split: str) -> Rows:
    library = _library()
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            return library.load_from_disk(path)[split]
        return library.load_dataset(path, config, split=split)
    except KeyError as error:
        raise InputError(f"{path} has no split {split!r}: {first_line(error)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: Hugging Face's library cannot open split {split!r}: {first_line(error)}") from error


def _library() -> Any:
    try:
        library = importlib.import_module("datasets")
    except ModuleNotFoundError:
        library = None
    # if the library is not installed, a checkout's own folder datasets is imported
    if library is None or library.__file__ is None:
        raise InputError("data=hf needs Hugging Face's library: pip install 'kravl[hf]'")
    if int(library.__version__.split(".")[0]) < SAFE:
        raise InputError(f"datasets {library.__version__} runs code that a data set brings: install datasets >= {SAFE}")
    return library
