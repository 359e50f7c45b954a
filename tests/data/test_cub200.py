"""CUB-200-2011 is split by its own lists, and its species lose their numbers."""

from pathlib import Path

import pytest

from kravl.data.sources.cub200 import Cub200
from kravl.runtime.errors import InputError

LISTS = {
    "images.txt": "1 002.Laysan_Albatross/a.jpg\n2 001.Black-footed_Albatross/b.jpg\n3 002.Laysan_Albatross/c.jpg\n",
    "image_class_labels.txt": "1 2\n2 1\n3 2\n",
    "train_test_split.txt": "1 0\n2 1\n3 1\n",
    "classes.txt": "1 001.Black-footed_Albatross\n2 002.Laysan_Albatross\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "CUB_200_2011/images").mkdir(parents=True)
    for name, text in LISTS.items():
        (tmp_path / "CUB_200_2011" / name).write_text(text)
    return tmp_path


def test_the_published_flags_say_what_is_train_and_what_is_test(root: Path) -> None:
    source = Cub200(str(root))

    assert source.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert source.split("train").names == ("001.Black-footed_Albatross/b.jpg", "002.Laysan_Albatross/c.jpg")
    assert source.split("train").labels == (0, 1)
    assert source.split("test").names == ("002.Laysan_Albatross/a.jpg",)
    assert source.split("test").labels == (1,)


def test_lists_of_different_images_are_refused(root: Path) -> None:
    (root / "CUB_200_2011/train_test_split.txt").write_text("1 0\n2 1\n")

    with pytest.raises(InputError, match="do not number the same images"):
        Cub200(str(root))
