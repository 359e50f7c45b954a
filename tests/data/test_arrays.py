"""Images in NumPy files keep their rows, their labels and the severity that is asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from kravl.data.catalog import class_names
from kravl.data.sources.arrays import ArraySet, _mapped
from kravl.runtime.errors import InputError

FILES = {"images": "fog.npy", "labels": "labels.npy"}
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(20) % 10


def write(root: Path, images: np.ndarray = PIXELS, labels: np.ndarray = LABELS) -> str:
    np.save(root / "fog.npy", images, allow_pickle=images.dtype == object)
    np.save(root / "labels.npy", labels)
    return str(root)


def test_every_row_is_an_image_of_a_class_of_cifar10(tmp_path: Path) -> None:
    samples = ArraySet("mine", write(tmp_path), FILES, "cifar10").split("test")

    assert samples.labels == tuple(LABELS)
    assert np.array_equal(np.asarray(samples.image(7)), PIXELS[7])
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(samples)).subset([3]).image(0)), PIXELS[3])
    samples.check(19)


def test_a_file_is_mapped_once_and_again_when_it_changes(tmp_path: Path) -> None:
    samples = ArraySet("mine", write(tmp_path), FILES, "cifar10").split("test")
    before = _mapped.cache_info().misses

    assert np.array_equal(np.asarray(samples.image(3)), PIXELS[3])
    assert np.array_equal(np.asarray(samples.image(4)), PIXELS[4])
    assert _mapped.cache_info().misses == before

    (tmp_path / "fog.npy").unlink()
    write(tmp_path, PIXELS[::-1])
    assert np.array_equal(np.asarray(samples.image(3)), PIXELS[-4])


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_severity_is_its_fifth_of_the_file(severity: int, tmp_path: Path) -> None:
    source = ArraySet("mine", write(tmp_path), FILES, "cifar10", severity)

    samples = source.split("test")

    rows = range(4 * (severity - 1), 4 * severity)
    assert samples.labels == tuple(LABELS[r] for r in rows)
    assert all(np.array_equal(np.asarray(samples.image(i)), PIXELS[r]) for i, r in enumerate(rows))
    assert source.identity != ArraySet("mine", str(tmp_path), FILES, "cifar10", 2).identity


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100)])
def test_labels_count_the_classes_in_the_order_of_the_alphabet(name: str, count: int) -> None:
    names = class_names(name)

    assert names is not None
    assert len(names) == count
    assert list(names) == sorted(names)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (PIXELS[:, :, :, 0], LABELS, r"expected images uint8 \(n, h, w, 3\)"),
        (PIXELS.astype(np.float32), LABELS, "but found float32"),
        (PIXELS, LABELS[:5], r"and \(5,\)"),
        (PIXELS, LABELS + 1, r"labels \[10\] are outside the 10 classes"),
        (np.array([{}], dtype=object), LABELS, "cannot read .*fog.npy"),
    ],
)
def test_arrays_that_are_something_else_are_refused(
    images: np.ndarray, labels: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        ArraySet("mine", write(tmp_path, images, labels), FILES, "cifar10")


def test_a_severity_outside_the_five_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="severity is 6; it must be 1 to 5"):
        ArraySet("mine", write(tmp_path), FILES, "cifar10", 6)
    with pytest.raises(InputError, match=r"cannot read .*snow\.npy"):
        ArraySet("mine", str(tmp_path), FILES | {"images": "snow.npy"}, "cifar10")
