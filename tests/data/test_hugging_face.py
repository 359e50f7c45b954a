"""A data set of Hugging Face's library keeps its labels, and its images are read as any file is."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kravl.data.sources.folder import ImageFolder
from kravl.data.sources.hugging_face import HuggingFace
from kravl.runtime.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Cannot (pickle|locate)")  # dill, which hashes a set for its cache
SPLITS = {"train": "train", "test": "test"}
spec = importlib.util.find_spec("datasets")
# the folder datasets of the checkout has no origin
needs_library = pytest.mark.skipif(spec is None or spec.origin is None, reason="the extra kravl[hf] is not installed")


@pytest.fixture
def root(make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    make_tree("train", {"hot_dog": 3, "cat": 2})
    return make_tree("test", {"hot_dog": 1, "cat": 2})


def save(
    folder: Path, splits: dict[str, list[tuple[bytes, Any]]], names: list[str] | None = None, **columns: str
) -> Path:
    """A set as ``save_to_disk`` writes it: for each split the bytes of image files, with labels."""
    library: Any = importlib.import_module("datasets")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    arrow: Any = importlib.import_module("pyarrow")
    image, label = columns.get("image", "image"), columns.get("label", "label")
    loaded = {}
    for split, rows in splits.items():
        file = folder.with_name(f"{folder.name}-{split}.parquet")
        column = [{"bytes": data, "path": None} for data, _ in rows]
        parquet.write_table(arrow.table({image: column, label: [value for _, value in rows]}), file)
        # not Dataset.from_dict: datasets 5.2 cannot hash a table of pyarrow 26
        dataset = library.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(folder) + "-cache")
        dataset = dataset.cast_column(image, library.Image())
        loaded[split] = dataset.cast_column(label, library.ClassLabel(names=names)) if names else dataset
    library.DatasetDict(loaded).save_to_disk(folder)
    return folder


@pytest.fixture
def saved(root: Path) -> Path:
    """The tree with the bytes of its files."""
    files = {split: sorted((root / split).rglob("*.png")) for split in SPLITS}
    rows = {split: [(file.read_bytes(), file.parent.name) for file in paths] for split, paths in files.items()}
    return save(root / "saved", rows, ["hot_dog", "cat"])


@needs_library
def test_a_saved_set_has_the_images_labels_and_class_names_that_were_saved(saved: Path, root: Path) -> None:
    source = HuggingFace(str(saved), SPLITS)
    files = ImageFolder(str(root), train="train", test="test")

    assert source.class_names == ("hot dog", "cat")
    assert source.split("train").labels == (1, 1, 0, 0, 0)
    assert source.split("test").names == ("test/000000", "test/000001", "test/000002")
    for i in range(3):
        assert np.array_equal(source.split("test").image(i), files.split("test").image(i))
        source.split("test").check(i)


@needs_library
def test_labels_without_names_are_sorted(root: Path) -> None:
    data = (root / "train/cat/0.png").read_bytes()
    folder = save(root / "numbers", {"train": [(data, 12), (data, 3), (data, 12)]}, image="picture", label="kind")

    source = HuggingFace(str(folder), {"train": "train"}, image="picture", label="kind")

    assert (source.class_names, source.split("train").labels) == (("3", "12"), (1, 0, 1))


@needs_library
def test_a_damaged_image_is_named(root: Path) -> None:
    samples = HuggingFace(str(save(root / "bad", {"train": [(b"no image", "cat")]})), {"train": "train"}).split("train")

    with pytest.raises(InputError, match="cannot read row 0: not an image"):
        samples.check(0)


@needs_library
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "img"}, r"unknown column of .*saved \(data.source.image\) 'img': did you mean 'image'"),
        ({"label": "labels"}, r"unknown column of .*saved \(data.source.label\) 'labels': did you mean 'label'"),
        ({"image": "label"}, r"the column 'label' holds no images but ClassLabel; set data.source.image"),
        ({"splits": {"train": "trian"}}, r"saved has no split 'trian'"),
        ({"splits": {}}, r"splits is empty"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, Any], message: str, saved: Path) -> None:
    with pytest.raises(InputError, match=message):
        HuggingFace(str(saved), **({"splits": SPLITS} | settings))


@needs_library
def test_a_set_that_cannot_be_opened_is_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"nobody/nothing: Hugging Face's library cannot open split 'train'"):
        HuggingFace("nobody/nothing", SPLITS)


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    with pytest.raises(InputError, match=r"pip install 'kravl\[hf\]'"):
        HuggingFace("owner/name", SPLITS)
