"""Class names that a user gives replace those of a set; a label that it does not have is named with the nearest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data.classes import name_classes
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


@pytest.fixture
def source(make_tree: Callable[..., Path]) -> ImageFolder:
    return ImageFolder(str(make_tree("train", {"n01_cat": 1, "n02": 1, "old_dog": 1}) / "train"))


def test_names_are_the_given_ones_and_cleaned_where_none_is_given(source: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text('n02, "hen, of  the_yard"\n\nn01_cat,größere Katze\n')

    name_classes(source, str(tmp_path / "names.csv"))

    assert source.class_names == ("größere Katze", "hen, of the yard", "old dog")
    assert source.class_ids == ("n01_cat", "n02", "old_dog")


def test_without_a_file_names_stay(source: ImageFolder) -> None:
    name_classes(source, None)

    assert source.class_names == ("n01 cat", "n02", "old dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n03,hen", r"unknown label in .*: class of folder 'n03': did you mean 'n02'"),
        ("n02", r"line 1: 'n02' is not label,name"),
        ("n02,hen\nn02,cock", r"line 2: the label 'n02' is there already"),
        ("n02,hen,cock", r"line 1: 'n02,hen,cock' is not label,name"),
        ("n02, ", r"line 1: 'n02,' is not label,name"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str, source: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text(text)

    with pytest.raises(InputError, match=message):
        name_classes(source, str(tmp_path / "names.csv"))
