"""A contact sheet shows the images where its labels say."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.corruptions.source import Corrupted
from kravl.data.inspect.contact_sheet import GAP, LABEL_WIDTH, SheetRow, class_rows, corruption_rows, draw_sheet
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError

MakeTree = Callable[..., Path]
RED, BLUE = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (20, 30), "blue")


def source(root: Path) -> ImageFolder:
    return ImageFolder(str(root), train="a", test="a")


def test_each_image_is_in_its_row_and_column() -> None:
    sheet = draw_sheet("two rows", [SheetRow("first", [RED, BLUE]), SheetRow("second", [BLUE])], [], tile=16)

    pixels = np.asarray(sheet)
    top = sheet.height - 2 * (16 + GAP)
    for line, column, colour in ((0, 0, (255, 0, 0)), (0, 1, (0, 0, 255)), (1, 0, (0, 0, 255))):
        y, x = top + line * (16 + GAP), LABEL_WIDTH + column * (16 + GAP)
        assert (pixels[y : y + 16, x : x + 16] == colour).all()
    assert (pixels[top + 16 + GAP :, LABEL_WIDTH + 16 :] == 255).all()


def test_a_label_stays_in_its_margin_and_a_title_on_the_sheet() -> None:
    label = "a class name of many words and " + "w" * 60
    white = Image.new("RGB", (9, 9), "white")

    sheet = draw_sheet(
        "a title that is far wider than the one image below it", [SheetRow(label, [white])], ["1"], tile=200
    )

    ink = np.asarray(sheet.convert("L")) < 200
    assert ink[80:, :LABEL_WIDTH].any()
    assert not ink[80:, LABEL_WIDTH:].any()
    assert not ink[:, -5:].any()


def test_classes_and_images_are_spread_over_what_there_is(make_tree: MakeTree) -> None:
    samples = source(make_tree("a", dict.fromkeys("abcdefgh", 5))).split("test")

    rows = class_rows(samples, list("abcdefgh"), num_classes=4, num_samples=2)

    assert [row.label for row in rows] == ["a (5)", "c (5)", "e (5)", "g (5)"]
    assert [np.array_equal(rows[1].images[i], samples.image(10 + j)) for i, j in ((0, 0), (1, 2))] == [True, True]
    assert len(class_rows(samples, list("abcdefgh"), 20, 9)[0].images) == 5


def test_an_image_that_cannot_be_read_is_shown_as_the_reason(make_tree: MakeTree) -> None:
    root = make_tree("a", {"cat": 2})
    (root / "a/cat/0.png").write_bytes(b"")

    (row,) = class_rows(source(root).split("test"), ["cat"], 1, 2)

    assert "cannot read" in str(row.images[0])
    assert np.asarray(draw_sheet("t", [row], [], tile=64)).min() < 128


def test_all_corruptions_are_shown_of_one_image_by_severity(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = source(make_tree("a", {"cat": 1}))
    monkeypatch.setattr("kravl.data.inspect.contact_sheet.CORRUPTIONS", ("jpeg_compression", "contrast", "frost"))

    rows = corruption_rows(clean, "all", 3)

    assert [row.label for row in rows] == ["jpeg compression", "contrast", "frost"]
    expected = Corrupted(clean, "contrast", 5).split("test").image(0)
    assert np.array_equal(rows[1].images[5], expected)
    assert [type(image) for image in rows[2].images[1:]] == [str] * 5  # its photographs are not here


def test_one_corruption_is_shown_of_several_images(make_tree: MakeTree) -> None:
    root = make_tree("a", {"hot_dog": 2})
    shutil.copytree(root / "a/hot_dog", root / "a/ant")

    rows = corruption_rows(source(root), "contrast", 2)

    assert [row.label for row in rows] == ["ant", "hot dog"]


def test_an_unknown_corruption_is_named_with_the_nearest(make_tree: MakeTree) -> None:
    with pytest.raises(InputError, match="did you mean 'contrast'"):
        corruption_rows(source(make_tree("a", {"cat": 1})), "contrst", 2)
