"""Any folder of class folders becomes a data set; one that is not what it should be is named."""

import hashlib
import logging
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torchvision
from PIL import Image

from kravl.data.classes import match_classes, name_classes
from kravl.data.sources.class_half import chosen_classes
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
    for name in ("cat/notes.txt", "cat/a.heic", "cat/b.txt", "cat/drawing.eps", "labels.csv", "cat/.DS_Store"):
        (root / "train" / name).write_text("")
    shutil.copy(root / "train/cat/0.png", root / "train/cat/.hidden.png")

    with caplog.at_level(logging.WARNING):
        samples = ImageFolder(str(root / "train")).split("train")

    assert samples.names == ("cat/0.png", "cat/1.png")
    assert caplog.messages == [
        f"{root}/train: 1 files belong to no class folder, e.g. labels.csv",
        f"{root}/train: 5 files are left out as no images (2 .txt, 1 .png, 1 .heic, 1 .eps), e.g. cat/.hidden.png",
    ]


def test_images_in_sub_folders_of_a_class_are_those_that_torchvision_finds_in_its_order(
    make_tree: Callable[..., Path],
) -> None:
    root = make_tree("train", {"cat": 2, "cat/siamese": 2, "cat/siamese/old": 1, "cat/b c": 1, "dog/x": 2, "dog.2": 1})

    samples = ImageFolder(str(root / "train")).split("train")

    theirs = torchvision.datasets.ImageFolder(str(root / "train")).samples
    ours = [str(root / "train" / name) for name in samples.names]
    assert list(zip(ours, samples.labels, strict=True)) == theirs
    (root / "train/dog/x/y").symlink_to(root / "train/dog")  # a circle
    assert ImageFolder(str(root / "train")).split("train").names == samples.names


def test_images_are_in_the_order_of_their_names_whatever_the_file_system_says(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    names = [f"{(7 * i) % 50:02}.png" for i in range(50)]
    for name in names:
        (tmp_path / "cat" / name).touch()

    samples = ImageFolder(str(tmp_path)).split("train")

    assert samples.names == tuple(f"cat/{name}" for name in sorted(names))


def test_empty_folders_and_those_of_a_system_are_passed_over_with_a_line(
    make_tree: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree("train", {"cat": 2, "dog": 1, "emu": 0, "__MACOSX/cat": 1, "@eaDir/0.png": 1, ".git": 1})
    make_tree("train/cat/@eaDir", {"0.png": 1})
    (root / "train/emu/.DS_Store").write_text("")

    with caplog.at_level(logging.WARNING):
        source = ImageFolder(str(root / "train"))

    assert source.class_ids == ("cat", "dog")
    assert source.split("train").names == ("cat/0.png", "cat/1.png", "dog/0.png")
    assert caplog.messages == [
        f"{root}/train: 4 folders are passed over: emu (empty), .git, @eaDir, __MACOSX",
        f"{root}/train: 1 folders are passed over: cat/@eaDir",
    ]


def test_a_class_folder_of_files_that_are_no_images_is_refused(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 2, "dog": 0, "emu": 0})
    for name in ("dog/a.heic", "emu/notes.txt"):
        (root / "train" / name).write_text("")

    with pytest.raises(InputError, match="2 class folders hold files but no image: dog, emu"):
        ImageFolder(str(root / "train")).split("train")


def test_one_name_in_two_forms_of_unicode_is_one_class(make_tree: Callable[..., Path]) -> None:
    mac, other = "cafe\u0301", "caf\u00e9"
    root = make_tree("train", {mac: 2, other: 1, "tea": 1})
    make_tree("test", {other: 1, "tea": 1})
    (root / "names.csv").write_text(f"{mac},coffee\n")

    source = ImageFolder(str(root), train="train", test="test")
    name_classes(source, str(root / "names.csv"))

    assert (source.class_ids, source.class_names) == ((other, "tea"), ("coffee", "tea"))
    assert sorted(source.split("train").labels) == [0, 0, 0, 1]
    assert source.split("test").labels == (0, 1)
    assert [source.split("train").image(i).size for i in range(4)] == [(10, 12)] * 4
    assert match_classes(source, (mac, "tea")) is None


def test_the_forms_of_unicode_decide_neither_the_order_nor_the_hash(make_tree: Callable[..., Path]) -> None:
    for folder, form in (("train", "NFC"), ("other", "NFD")):
        make_tree(folder, {unicodedata.normalize(form, name): 2 for name in ("é", "ea", "ez", "f")})
    root = make_tree("x", {})

    one, two = (ImageFolder(str(root / folder)) for folder in ("train", "other"))

    assert one.class_ids == two.class_ids
    assert one.split("train").sha256() == two.split("train").sha256()


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
        (("Training", "valid", "TEST", "docs"), {"train": "Training", "val": "valid", "test": "TEST"}),
        (("train", "val"), {"train": "train", "test": "val"}),
        (("train",), {"train": "train"}),
        (("training_set", "test_set"), {"train": "training_set", "test": "test_set"}),
        (
            ("images_train", "trainset", "val2017", "train", "test-1"),
            {"train": "train", "val": "val2017", "test": "test-1"},
        ),
        (("TrainData", "eval", "docs"), {"train": "TrainData", "test": "eval"}),
        (("images/train", "images/test"), {"train": "images/train", "test": "images/test"}),
    ],
)
def test_the_folders_of_the_splits_are_found_by_their_names(
    folders: Sequence[str], splits: dict[str, str], make_tree: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for place, folder in enumerate(folders):
        root = make_tree(folder, {"cat": 1 + place, "dog": 1})

    with caplog.at_level(logging.INFO):
        source = ImageFolder(str(root))

    assert source.class_ids == ("cat", "dog")
    assert {s: len(source.split(s)) for s in source.splits} == {s: 2 + folders.index(f) for s, f in splits.items()}
    (line,) = caplog.messages
    assert all(f"{split} is {root / folder}" in line for split, folder in splits.items())
    assert ("not used: docs" in line) == ("docs" in folders)


def test_folders_named_like_splits_that_hold_images_are_no_splits(make_tree: Callable[..., Path]) -> None:
    root = make_tree("vehicles", {"train": 2, "bus": 1})
    make_tree("flat", {"train": 2, "test": 1})
    make_tree("two", {"train/cat": 1, "training/cat": 1, "test/cat": 1})

    assert ImageFolder(str(root / "vehicles")).class_ids == ("bus", "train")
    assert ImageFolder(str(root / "flat"), train=".").class_ids == ("test", "train")
    with pytest.raises(InputError, match=r"holds test, train, but no class folders in a training folder; expected"):
        ImageFolder(str(root / "flat"))
    make_tree("loose", {"train2": 1, "test_1/x": 1, "exam": 1})
    with pytest.raises(
        InputError, match=r"loose holds test_1, train2, but no class folders.*data\.train=\. takes each"
    ):
        ImageFolder(str(root / "loose"))
    make_tree("beside", {"train/cat": 1, "test": 1, "exam": 1})
    with pytest.raises(InputError, match=r"beside holds test, train, but class folders in train only; expected"):
        ImageFolder(str(root / "beside"))
    with pytest.raises(InputError, match=r"holds train and training; name one with data\.train="):
        ImageFolder(str(root / "two"))


def test_splits_that_lie_elsewhere_are_no_classes(make_tree: Callable[..., Path]) -> None:
    root = make_tree("first", {f"{name}/{split}": 1 for name in ("cat", "dog") for split in ("train", "test")})
    make_tree("deep", {"images/train/cat": 1, "images/val/cat": 1, "labels": 1})

    with pytest.raises(InputError, match=r"first/cat holds test, train: the splits lie in the class folders"):
        ImageFolder(str(root / "first"))
    assert ImageFolder(str(root / "first"), train=".").class_ids == ("cat", "dog")
    with pytest.raises(InputError, match=r"deep/images holds train, val.*pass data\.root=.*/deep/images, or"):
        ImageFolder(str(root / "deep"))


def test_a_folder_without_test_images_holds_out_a_share_of_each_class(
    make_tree: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree("mine", {"cat": 10, "dog": 4, "emu": 2, "fox": 1}) / "mine"

    with caplog.at_level(logging.INFO):
        source = ImageFolder(str(root), test_share=0.3)
    train, test = source.split("train"), source.split("test")

    assert Counter(test.labels) == {0: 3, 1: 1, 2: 1}  # round(0.3 n), of two images one, of a single one none
    assert sorted(train.names + test.names) == sorted(ImageFolder(str(root)).split("train").names)
    ranked = sorted(
        (f"cat/{i}.png" for i in range(10)), key=lambda name: hashlib.sha256(f"0\t{name}".encode()).digest()
    )
    assert {name for name in test.names if name.startswith("cat")} == set(ranked[:3])
    assert "a share of 0.3 of each class, drawn with seed 0" in caplog.text
    other = ImageFolder(str(root), test_share=0.3, test_seed=1)
    assert other.split("test").names != test.names
    assert other.split_sha256(train) != source.split_sha256(train) != train.sha256()
    assert not other.overlaps(source)
    assert chosen_classes(source, "base").split_sha256(train) != train.sha256()


def test_a_share_that_leaves_nothing_is_refused(make_tree: Callable[..., Path]) -> None:
    root = make_tree("mine", {"cat": 1, "dog": 1}) / "mine"

    with pytest.raises(InputError, match=r"test_share is 1\.0; it must be between 0 and 1"):
        ImageFolder(str(root), test_share=1.0)
    with pytest.raises(InputError, match=r"no class has two images"):
        ImageFolder(str(root), test_share=0.5).split("test")


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
    with pytest.raises(InputError, match=r"no folder \$HOME/a: \$HOME is text here; the shell replaces it outside"):
        ImageFolder("$HOME/a")


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


def test_links_to_a_folder_above_are_passed_over(
    make_tree: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree("train", {"cat": 2, "dog": 1})
    make_tree("elsewhere/more", {"x": 1})
    for place, target in (("loop", "."), ("cat/up", ".."), ("cat/out", "../.."), ("cat/more", "../../elsewhere/more")):
        (root / "train" / place).symlink_to(target)
    (root / "elsewhere/more/back").symlink_to(root / "train")

    source = ImageFolder(str(root / "train"))

    assert source.class_ids == ("cat", "dog")
    assert source.split("train").names == ("cat/0.png", "cat/1.png", "cat/more/x/0.png", "dog/0.png")
    assert caplog.messages == [
        f"{root}/train: 1 folders are passed over: loop (a link to a folder above it)",
        f"{root}/train: 3 folders are passed over: cat/out (a link to a folder above it), "
        "cat/up (a link to a folder above it), cat/more/back (a link to a folder above it)",
    ]


@pytest.mark.parametrize(
    ("link", "target", "named"),
    [
        ("dog/copy.png", "../cat/0.png", r"cat/0\.png and dog/copy\.png"),
        ("kitty", "cat", r"cat/0\.png and kitty/0\.png"),
        ("cat/dogs", "../dog", r"cat/dogs/0\.png and dog/0\.png"),
    ],
)
def test_one_file_in_two_classes_is_refused(link: str, target: str, named: str, make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 2, "dog": 1}) / "train"
    (root / link).symlink_to(target)

    with pytest.raises(InputError, match=rf"{named} are one file in two classes, through a link"):
        ImageFolder(str(root)).split("train")


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
