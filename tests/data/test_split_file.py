"""A published split file is followed to the letter, and refused where it contradicts itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import InputError

GOOD: dict[str, Any] = {
    "train": [["d/1.png", 1, "hot_dog"], ["c/1.png", 0, "cat"], ["d/2.png", 1, "hot_dog"]],
    "val": [["c/2.png", 0, "cat"]],
    "test": [["c/3.png", 0, "cat"], ["d/3.png", 1, "hot_dog"]],
}


def read(folder: Path, content: object) -> SplitFile:
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return SplitFile("mine", str(folder), str(path))


def test_paths_labels_and_names_are_those_of_the_file(tmp_path: Path) -> None:
    source = read(tmp_path, GOOD)

    assert source.class_names == ("cat", "hot dog")
    assert source.class_ids == ("cat", "hot_dog")
    assert source.splits == ("train", "val", "test")
    assert source.split("train").names == ("d/1.png", "c/1.png", "d/2.png")
    assert source.split("train").labels == (1, 0, 1)
    assert source.split("test").labels == (0, 1)
    assert source.templates == ("a photo of a {}.",)


def test_an_empty_list_is_a_split_that_is_not_there(tmp_path: Path) -> None:
    source = read(tmp_path, GOOD | {"val": []})

    with pytest.raises(InputError, match=r"unknown split of mine 'val'.*\(test, train\)"):
        source.split("val")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("{", "is not JSON"),
        ([], "must be an object with the lists train, val, test"),
        ({"train": []}, "must be an object with the lists train, val, test"),
        (GOOD | {"val": [["c/2.png", "0", "cat"]]}, r"val record 0: \['c/2.png', '0', 'cat'\] is not \[path, label"),
        (GOOD | {"val": [["c/2.png", 0]]}, "is not"),
        (GOOD | {"val": [["c/2.png", True, "cat"]]}, "is not"),
        (GOOD | {"val": [["../x.png", 0, "cat"]]}, "'../x.png' leaves the image folder"),
        (GOOD | {"val": [["/etc/x.png", 0, "cat"]]}, "'/etc/x.png' leaves the image folder"),
        (GOOD | {"val": [["c/2.png", 1, "cat"]]}, "label 1 is 'hot_dog', but 'cat' for c/2.png"),
        (GOOD | {"val": [["c/2.png", 3, "emu"]]}, r"3 classes need the labels 0 to 2, not 3 \(emu\)"),
        (GOOD | {"val": [["c/2.png", -1, "emu"]]}, r"3 classes need the labels 0 to 2, not -1 \(emu\)"),
        (GOOD | {"val": [["c/2.png", 2, "Hot dog"]]}, "duplicate class names: 'hot_dog' and 'Hot dog'"),
        (GOOD | {"val": [["c/2.png", 2, "cat"]]}, "duplicate class names: 'cat' and 'cat'"),
        (GOOD | {"val": [["c/3.png", 0, "cat"]]}, "c/3.png is in val and again in test"),
        ({"train": [], "val": [], "test": []}, "no classes"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(changed: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, changed)


def test_a_missing_split_file_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split file .*absent\.json; set data_root, or data\.source\.split_file"):
        SplitFile("mine", str(tmp_path), str(tmp_path / "absent.json"))


@pytest.mark.assets
def test_caltech101_has_the_published_sizes_and_opens_its_images(assets: Path) -> None:
    root = assets / "caltech101"
    source = SplitFile("caltech101", str(root / "101_ObjectCategories"), str(root / "split_zhou_Caltech101.json"))

    sizes = {split: len(source.split(split)) for split in source.splits}
    assert sizes == {"train": 4128, "val": 1649, "test": 2465}
    assert len(source.class_names) == 100
    assert source.class_names[:3] == ("face", "leopard", "motorbike")
    assert min(source.split("test").image(7).size) == 128
