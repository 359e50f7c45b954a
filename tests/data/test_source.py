"""Samples keep their images through subsets; class names are told apart as a person would."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from kravl.data.catalog import existing_folder
from kravl.data.source import readable_name, refuse_duplicates
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


def test_a_subset_of_a_subset_opens_its_own_images(make_tree: Callable[..., Path]) -> None:
    samples = ImageFolder(str(make_tree("train", {"cat": 4, "dog": 3})), train="train").split("train")

    twice = samples.subset([6, 1, 4, 0]).subset([2, 1, 1])

    assert twice.names == ("dog/0.png", "cat/1.png", "cat/1.png")
    assert twice.labels == (1, 0, 0)
    assert twice.image(0).tobytes() == samples.image(4).tobytes()
    assert twice.image(2).tobytes() == samples.image(1).tobytes()
    assert pickle.loads(pickle.dumps(twice)).image(1).tobytes() == samples.image(1).tobytes()


def test_the_digest_is_of_names_labels_and_order(make_tree: Callable[..., Path]) -> None:
    samples = ImageFolder(str(make_tree("train", {"cat": 2, "dog": 1})), train="train").split("train")

    expected = hashlib.sha256(b"cat/0.png\t0\ncat/1.png\t0\ndog/0.png\t1\n").hexdigest()
    assert samples.sha256() == expected
    assert samples.subset([0, 2, 1]).sha256() != expected


def test_a_file_name_that_is_not_utf8_counts_by_its_bytes_and_such_a_class_name_is_refused(tmp_path: Path) -> None:
    for folder in ("cat", "dog"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / folder / "a.png")
    odd = os.fsencode(tmp_path / "train/cat") + b"/caf\xe9.png"
    os.rename(tmp_path / "train/cat/a.png", odd)  # noqa: PTH104 (a name of bytes)

    samples = ImageFolder(str(tmp_path), train="train").split("train")

    assert samples.sha256() == hashlib.sha256(b"cat/caf\xe9.png\t0\ndog/a.png\t1\n").hexdigest()
    os.rename(os.fsencode(tmp_path / "train/dog"), os.fsencode(tmp_path / "train") + b"/th\xe9")  # noqa: PTH104
    with pytest.raises(InputError, match=r"'th\\udce9' holds a control character, or is not UTF-8"):
        ImageFolder(str(tmp_path), train="train")


def test_a_class_name_is_written_with_spaces() -> None:
    assert readable_name("car_side") == "car side"
    assert readable_name("  hot__dog ") == "hot dog"
    assert readable_name("cafe\N{COMBINING ACUTE ACCENT}") == "café"


def test_names_that_differ_in_case_or_spacing_only_are_duplicates() -> None:
    refuse_duplicates("set", ["cat", "cats", "dog"])

    with pytest.raises(InputError, match="set: duplicate class names: 'hot_dog' and 'Hot Dog'; 'a' and 'A'; rename"):
        refuse_duplicates("set", ["hot_dog", "a", "Hot Dog", "b", "A"])


def test_a_missing_folder_is_named_with_the_setting_and_the_source_of_the_images(
    make_tree: Callable[..., Path],
) -> None:
    root = make_tree("train", {"cat": 1})

    with pytest.raises(
        InputError, match=r"caltech101: no folder .*/nowhere; set data_root.*https://data\.caltech\.edu"
    ):
        existing_folder("caltech101", root / "nowhere")
    with pytest.raises(InputError, match=r"mine: not a folder .*0\.png; set data_root, or the root of this set$"):
        existing_folder("mine", root / "train/cat/0.png")


def test_a_split_that_the_set_lacks_is_named_with_those_it_has(make_tree: Callable[..., Path]) -> None:
    source = ImageFolder(str(make_tree("train", {"cat": 1})), train="train")

    with pytest.raises(InputError, match=r"unknown split of folder 'test': did you mean .*\(train\)"):
        source.split("test")
