"""An evaluation set's classes are found among the trained ones by id."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data.classes import match_classes
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


def test_a_set_of_all_classes_in_order_needs_no_subset(make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("new", {"cat": 1, "dog": 1}) / "new"))

    assert match_classes(source, ("cat", "dog")) is None


def test_a_subset_is_found_wherever_its_classes_are(make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("new", {"cat": 1, "dog": 1, "emu": 1}) / "new"))

    assert match_classes(source, ("emu", "ape", "dog", "cow", "cat")) == (4, 2, 0)
    assert match_classes(source, ("emu", "dog", "cat")) == (2, 1, 0)


def test_a_class_that_was_not_trained_is_named_with_the_nearest(make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("new", {"cat": 1, "dogs": 1}) / "new"), name="pets")

    with pytest.raises(InputError, match="pets: 1 classes are not among the trained ones: 'dogs', nearest 'dog'"):
        match_classes(source, ("cat", "dog"))
