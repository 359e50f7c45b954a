"""A data set is held against its card, and what would spoil a result is found."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from kravl.data.images import FileOpener
from kravl.data.inspect.verify import Verification, inspect
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder

MakeTree = Callable[..., Path]


@pytest.fixture
def tree(make_tree: MakeTree) -> Path:
    """train: 3 cats and 2 dogs, test: 1 cat and 2 dogs, all different."""
    make_tree("train", {"cat": 3, "dog": 2})
    return make_tree("a test set", {"cat": 1, "dog": 2})


def verified(root: Path, images: Mapping[str, int] | None = None, classes: int | None = None) -> Verification:
    source = ImageFolder(str(root), train="train", test="a test set")
    report = Verification("mine", str(root), expected_classes=classes)
    inspect(report, {s: source.split(s) for s in ("train", "test")}, source.class_ids, images or {})
    return report


def test_a_sound_set_is_counted_by_split_and_class(tree: Path) -> None:
    report = verified(tree, {"train": 5, "test": 3}, classes=2)

    assert report.problems == []
    assert report.counts["train"] == (5, 5, {"cat": 3, "dog": 2})
    assert report.counts["test"] == (3, 3, {"cat": 1, "dog": 2})
    assert "train: 5 images of 2 classes, 2 to 3 a class" in report.text()
    assert report.text().endswith("all is well")


def test_what_differs_from_the_card_is_named(tree: Path) -> None:
    shutil.rmtree(tree / "a test set/cat")

    report = verified(tree, {"train": 7, "test": 3}, classes=3)

    assert report.problems == [
        "2 classes; the card says 3",
        "train: 5 images; the card says 7",
        "test: 2 images; the card says 3",
        "test: 1 classes without an image: cat",
    ]


def test_every_unreadable_image_is_named_with_its_reason(tree: Path) -> None:
    (tree / "train/cat/0.png").write_bytes(b"")
    (tree / "a test set/dog/1.png").write_bytes((tree / "a test set/dog/1.png").read_bytes()[:90])

    report = verified(tree)

    assert len(report.unreadable) == 2
    assert report.problems[0].startswith(f"unreadable: train: cannot read {tree}/train/cat/0.png: not an image")
    assert "dog/1.png" in report.problems[1]


def test_a_missing_image_of_a_list_is_named(tree: Path) -> None:
    samples = Samples(("cat/0.png", "cat/gone.png"), (0, 0), FileOpener(tree / "train", ("cat/0.png", "cat/gone.png")))
    report = Verification("mine", None)

    inspect(report, {"train": samples}, ["cat"], {})

    assert report.problems == [f"unreadable: train: cannot read {tree}/train/cat/gone.png: no such file"]
    assert report.text().endswith("no such file\n  something is wrong")


def test_a_training_image_among_the_test_images_is_found_under_any_name(tree: Path) -> None:
    shutil.copy(tree / "train/dog/1.png", tree / "a test set/dog/other.png")

    report = verified(tree)

    assert [double.names for double in report.leaked] == [("train/dog/1.png", "test/dog/other.png")]
    assert report.problems == ["1 images are in more than one split:", "  train/dog/1.png = test/dog/other.png"]


def test_a_double_within_a_split_is_a_problem_only_under_two_labels(tree: Path) -> None:
    shutil.copy(tree / "train/dog/1.png", tree / "train/dog/again.png")
    alike = verified(tree)
    shutil.copy(tree / "train/dog/0.png", tree / "train/cat/dog.png")
    odd = verified(tree)

    assert alike.problems == []
    assert "1 images are doubled within a split" in alike.text()
    assert odd.problems == ["1 images are in more than one class of a split:", "  train/cat/dog.png = train/dog/0.png"]
    assert sorted(double.classes for double in odd.doubled) == [("cat", "dog"), ("dog",)]


def test_images_that_are_no_files_are_compared_by_their_pixels() -> None:
    class Colours:
        def __call__(self, position: int) -> Image.Image:
            return Image.new("RGB", (4, 4), ("red", "blue", "red")[position])

        def check(self, position: int) -> None:
            self(position)

    report = Verification("colours", None)

    inspect(report, {"train": Samples(("a", "b", "c"), (0, 0, 0), Colours())}, ["colour"], {})

    assert [double.names for double in report.doubled] == [("train/a", "train/c")]


def test_the_report_as_json_says_the_same(tree: Path) -> None:
    (tree / "train/cat/0.png").write_bytes(b"")
    report = verified(tree, {"train": 5})

    record = json.loads(json.dumps(report.record()))

    assert record["problems"] == report.problems
    assert record["counts"]["train"] == {"images": 5, "expected": 5, "by_class": {"cat": 3, "dog": 2}}
    assert record["unreadable"] == report.unreadable
