"""Any folder of class folders becomes a data set; one that is not what it should be is named."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


def test_classes_are_the_sorted_folders_of_the_training_set(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"hot_dog": 2, "cat": 3, ".hidden": 1})
    make_tree("test", {"hot_dog": 1})

    source = ImageFolder(str(root), train="train", test="test")

    assert source.class_names == ("cat", "hot dog")
    assert source.split("train").labels == (0, 0, 0, 1, 1)
    assert source.split("test").names == ("hot_dog/0.png",)
    assert source.split("test").labels == (1,)
    assert source.splits == ("train", "test")


def test_folders_may_be_under_the_root_or_paths_of_their_own(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 2})
    make_tree("elsewhere", {"cat": 1})

    source = ImageFolder(str(root / "train"), test=str(root / "elsewhere"))

    assert len(source.split("train")) == 2
    assert len(source.split("test")) == 1


def test_files_that_are_no_images_are_left_out_with_a_line_in_the_log(
    make_tree: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree("train", {"cat": 2})
    (root / "train/cat/notes.txt").write_text("")
    (root / "train/cat/.DS_Store").write_text("")

    with caplog.at_level(logging.WARNING):
        samples = ImageFolder(str(root / "train")).split("train")

    assert samples.names == ("cat/0.png", "cat/1.png")
    assert caplog.messages == [f"{root}/train: 1 files are no images by their ending, e.g. cat/notes.txt"]


def test_images_are_in_the_order_of_their_names_whatever_the_file_system_says(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    names = [f"{(7 * i) % 50:02}.png" for i in range(50)]
    for name in names:
        (tmp_path / "cat" / name).touch()

    samples = ImageFolder(str(tmp_path)).split("train")

    assert samples.names == tuple(f"cat/{name}" for name in sorted(names))


def test_an_empty_class_folder_is_named(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 2, "dog": 0, "emu": 0})

    with pytest.raises(InputError, match="2 class folders are missing or hold no image: dog, emu"):
        ImageFolder(str(root / "train")).split("train")


def test_a_folder_without_class_folders_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder: .* holds no class folders; expected .*/<class>/<image>"):
        ImageFolder(str(tmp_path))


def test_two_folders_of_one_name_are_refused(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"hot dog": 1, "Hot_Dog": 1})

    with pytest.raises(InputError, match="duplicate class names: 'Hot_Dog' and 'hot dog'"):
        ImageFolder(str(root / "train"))


def test_a_test_class_that_is_not_trained_on_is_named_with_the_nearest(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 1, "dog": 1})
    make_tree("test", {"cat": 1, "dogs": 1})

    with pytest.raises(InputError, match=r"unknown class folder in .*test 'dogs': did you mean 'dog'"):
        ImageFolder(str(root), train="train", test="test").split("test")


def test_a_test_folder_inside_the_training_folder_is_not_taken_for_a_class(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 1})
    make_tree("test", {"cat": 1})

    with pytest.raises(InputError, match=r"the test folder .*/test lies inside the training folder .*data\.train="):
        ImageFolder(str(root), test="test")


def test_a_folder_that_is_not_there_is_named(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 1})

    make_tree("test", {"cat": 1})

    with pytest.raises(InputError, match=r"folder: test=tset: no folder .*/tset \(did you mean .*/test\?\); give a"):
        ImageFolder(str(root), train="train", test="tset")
    with pytest.raises(InputError, match=r"folder: root=.*/a/b/c: no folder .*/a/b/c \([^ ]*/a does not exist\)$"):
        ImageFolder(str(root / "a/b/c"))


def test_names_with_spaces_and_letters_of_any_script_are_read(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"größe 1": 1, "猫": 1})

    samples = ImageFolder(str(root / "train")).split("train")

    assert samples.names == ("größe 1/0.png", "猫/0.png")
    assert samples.image(1).size == (10, 12)


def test_the_ending_of_an_image_may_be_written_in_any_case(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 2})
    (root / "train/cat/0.png").rename(root / "train/cat/0.PNG")

    samples = ImageFolder(str(root / "train")).split("train")

    assert samples.names == ("cat/0.PNG", "cat/1.png")
    assert samples.image(0).size == (10, 12)


def test_folders_that_a_case_insensitive_file_system_would_merge_are_refused(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"Straße": 1, "STRASSE": 1})
    if len(list((root / "train").iterdir())) < 2:
        pytest.skip("this file system has merged them")

    with pytest.raises(InputError, match="duplicate class names: 'STRASSE' and 'Straße'"):
        ImageFolder(str(root / "train"))


def test_links_out_of_the_folder_are_followed(make_tree: Callable[..., Path]) -> None:
    root = make_tree("elsewhere", {"cat": 2, "dog": 1})
    (root / "train/cat").mkdir(parents=True)
    (root / "train/cat/a.png").symlink_to(root / "elsewhere/cat/1.png")
    (root / "train/dog").symlink_to(root / "elsewhere/dog")

    samples = ImageFolder(str(root / "train")).split("train")

    assert samples.names == ("cat/a.png", "dog/0.png")
    assert samples.image(0).tobytes() == Image.open(root / "elsewhere/cat/1.png").tobytes()


def test_a_link_that_leads_nowhere_or_to_itself_is_named(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 1})
    (root / "train/cat/away.png").symlink_to(root / "gone.png")
    (root / "train/cat/loop.png").symlink_to("loop.png")

    samples = ImageFolder(str(root / "train")).split("train")

    for index, name, reason in ((1, "away", "no such file"), (2, "loop", "symbolic link")):
        with pytest.raises(InputError, match=rf"cannot read .*cat/{name}\.png: .*{reason}"):
            samples.check(index)


def test_a_forgotten_root_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"no folder of images is given; pass data.root="):
        ImageFolder(None)
