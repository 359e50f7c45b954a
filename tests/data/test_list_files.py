"""Official splits in text files are read line by line, whatever way they name the class."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from kravl.data.sources.list_files import ListFiles
from kravl.runtime.errors import InputError


def write(root: Path, lists: Mapping[str, str], images: tuple[str, ...] = ()) -> str:
    for name, text in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for i, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (i, 0, 0)).save(root / name)
    return str(root)


def test_a_line_may_be_class_and_image(tmp_path: Path) -> None:
    root = write(tmp_path, {"meta/train.txt": "b_c/7\na/3\n", "meta/test.txt": "a/4\n"}, ("images/b_c/7.png",))

    source = ListFiles("mine", root, {"train": "meta/train.txt", "test": "meta/test.txt"}, "images/{}.png")

    assert (source.class_ids, source.class_names) == (("a", "b_c"), ("a", "b c"))
    assert source.split("train").names == ("images/b_c/7.png", "images/a/3.png")
    assert source.split("train").labels == (1, 0)
    assert source.split("train").image(0).size == (2, 2)


def test_a_line_may_be_image_and_class_in_the_order_of_a_list_of_classes(tmp_path: Path) -> None:
    lists = {"train.txt": "0034309 737 MAX\n0056978 A300B4\n", "variants.txt": "A300B4\n737 MAX\n"}

    source = ListFiles("mine", write(tmp_path, lists), {"train": "train.txt", "classes": "variants.txt"},
                       "images/{}.jpg", "line")  # fmt: skip

    assert source.class_ids == ("A300B4", "737 MAX")
    assert source.split("train").names == ("images/0034309.jpg", "images/0056978.jpg")
    assert source.split("train").labels == (1, 0)
    assert source.splits == ("train",)


def test_a_file_name_may_hold_the_class(tmp_path: Path) -> None:
    root = write(tmp_path, {"val.txt": "sea_ice_012.jpg\nbeach_7.jpg\n"})

    source = ListFiles("mine", root, {"val": "val.txt"}, "photos/{}", "file")

    assert source.split("val").names == ("photos/sea_ice/sea_ice_012.jpg", "photos/beach/beach_7.jpg")
    assert source.split("val").labels == (1, 0)


@pytest.mark.parametrize(
    ("text", "class_from", "message"),
    [
        ("a/1\n", "floder", "unknown class_from of mine 'floder': did you mean 'folder'"),
        ("../../etc/1\n", "folder", "'images/../../etc/1' leaves the image folder"),
        ("1 b\n", "line", "mine: listed, but not among the classes: b"),
    ],
)
def test_a_wrong_list_is_refused(text: str, class_from: str, message: str, tmp_path: Path) -> None:
    root = write(tmp_path, {"train.txt": text, "classes.txt": "a\n"})

    with pytest.raises(InputError, match=message):
        ListFiles("mine", root, {"train": "train.txt", "classes": "classes.txt"}, "images/{}", class_from)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no list .*/train\.txt; set data_root"):
        ListFiles("mine", str(tmp_path), {"train": "train.txt"})
