"""A torchvision data set on disk is read with its own splits and labels."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.sources.torchvision import TorchvisionSet
from kravl.runtime.errors import InputError

MNIST_SPLITS = {"train": {"train": True}, "test": {"train": False}}
FOOD_SPLITS = {"train": {"split": "train"}, "test": {"split": "test"}}


def write_idx(path: Path, values: np.ndarray) -> None:
    """The format of MNIST's files (https://yann.lecun.com/exdb/mnist/)."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.tobytes())


def mnist(root: Path, labels: list[int]) -> np.ndarray:
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.array(labels, dtype=np.uint8))
        for kind in ("images-idx3", "labels-idx1"):  # torchvision looks for both
            (raw / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(b""))
    return images


def food(root: Path) -> None:
    for split in ("train", "test"):
        (root / "food-101/meta").mkdir(parents=True, exist_ok=True)
        content = {"hot_dog": [f"hot_dog/{split}"], "apple_pie": [f"apple_pie/{split}"]}
        (root / f"food-101/meta/{split}.json").write_text(json.dumps(content))
        for name in content:
            (root / "food-101/images" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 5), (len(name), len(split), 0)).save(root / f"food-101/images/{name}/{split}.jpg")


def test_a_set_in_memory_has_its_pixels_labels_and_the_class_names_of_its_text_file(tmp_path: Path) -> None:
    images = mnist(tmp_path, [3, 0, 9])

    source = TorchvisionSet("mnist", "MNIST", str(tmp_path), MNIST_SPLITS)
    samples = source.split("train").subset([2, 1])

    assert source.class_names == (*("zero", "one", "two", "three", "four"), *("five", "six", "seven", "eight", "nine"))
    assert source.templates == ("a photo of the number {}.",)
    assert samples.labels == (9, 0)
    assert samples.names == ("train/000002", "train/000001")
    assert np.array_equal(np.asarray(samples.image(0)), np.repeat(images[2][..., None], 3, axis=2))
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(samples)).image(1))[..., 0], images[1])


def test_a_set_of_files_has_the_splits_and_class_names_of_torchvision(tmp_path: Path) -> None:
    food(tmp_path)

    source = TorchvisionSet("food", "Food101", str(tmp_path), FOOD_SPLITS)

    assert source.class_names == ("apple pie", "hot dog")
    assert source.splits == ("train", "test")
    assert sorted(source.split("test").labels) == [0, 1]
    assert source.split("test").image(0).size == (6, 5)
    with pytest.raises(InputError, match="unknown split of food 'val'"):
        source.split("val")


def test_labels_are_read_from_pairs_of_path_and_label_too(tmp_path: Path) -> None:
    for i, name in enumerate(("negative", "positive")):
        (tmp_path / "rendered-sst2/train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / "rendered-sst2/train" / name / "review.png")

    samples = TorchvisionSet("sst2", "RenderedSST2", str(tmp_path), {"train": {"split": "train"}}).split("train")

    assert samples.labels == (0, 1)
    assert samples.image(1).getpixel((0, 0)) == (1, 0, 0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    food(tmp_path)
    samples = TorchvisionSet("food", "Food101", str(tmp_path), FOOD_SPLITS).split("test")
    (tmp_path / "food-101/images/hot_dog/test.jpg").write_bytes(b"")

    with pytest.raises(InputError, match=r"cannot read image \d: .*hot_dog/test\.jpg"):
        for i in range(len(samples)):
            samples.check(i)


def test_labels_outside_the_class_list_are_named(tmp_path: Path) -> None:
    mnist(tmp_path, [3, 12, 9])

    with pytest.raises(InputError, match=r"mnist train: labels \[12\] are outside the 10 classes"):
        TorchvisionSet("mnist", "MNIST", str(tmp_path), MNIST_SPLITS).split("train")


def test_an_unknown_data_set_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown torchvision data set 'CIFAR1O': did you mean 'CIFAR10'"):
        TorchvisionSet("cifar10", "CIFAR1O", str(tmp_path), MNIST_SPLITS)


def test_missing_files_are_named_with_the_setting_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot open CIFAR10 under .*not found.*; set data_root, or .*download=true"):
        TorchvisionSet("cifar10", "CIFAR10", str(tmp_path), MNIST_SPLITS)


def test_wrong_split_arguments_are_named(tmp_path: Path) -> None:
    mnist(tmp_path, [1])

    with pytest.raises(InputError, match=r"arguments of MNIST for split train: .*'trian'"):
        TorchvisionSet("mnist", "MNIST", str(tmp_path), {"train": {"trian": True}})
    with pytest.raises(InputError, match="splits is empty"):
        TorchvisionSet("mnist", "MNIST", str(tmp_path), {})


def test_a_set_without_class_names_says_where_to_write_them(tmp_path: Path) -> None:
    (tmp_path / "gtsrb/GTSRB/Training/00000").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "gtsrb/GTSRB/Training/00000/sign.ppm")

    with pytest.raises(InputError, match=r"GTSRB has no class names; write them to datasets/signs/classes\.txt"):
        TorchvisionSet("signs", "GTSRB", str(tmp_path), {"train": {"split": "train"}})
