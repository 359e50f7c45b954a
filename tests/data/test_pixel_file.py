"""Evaluation images are resized once, to the same bits, in a file that is whole and of these images or is not used."""

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted import KINDS, plant
from safetensors.numpy import load_file

from kravl.data.images import FileOpener
from kravl.data.loading import pixel_cache as module
from kravl.data.loading.cache import check_images
from kravl.data.loading.pixel_cache import PixelFile, damaged_files, pixel_file, writing
from kravl.data.loading.transforms import CentreCrop
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError

CROP = CentreCrop(size=8, resize=9, interpolation="bicubic")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def photos(make_tree: Callable[..., Path]) -> Samples:
    return ImageFolder(str(make_tree("photos", {"cat": 5, "größe": 4}) / "photos")).split("train")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def prepare(samples: Samples, root: str | None) -> list[int]:
    """Write what is not written; returns how many images of each set had to be read."""
    with writing(root, {"test": samples}, CROP) as checked:
        check_images(checked)
        return [len(images) for images in checked.values()]


def expected(samples: Samples) -> list[np.ndarray]:
    return [CROP(samples.image(i)).transpose(2, 0, 1) for i in range(len(samples))]


def kept(samples: Samples, root: str) -> PixelFile:
    file = pixel_file(root, samples, CROP)
    assert file is not None
    return file


def same(file: PixelFile, samples: Samples) -> bool:
    return file.open() and all(np.array_equal(file[i], pixels) for i, pixels in enumerate(expected(samples)))


def test_kept_pixels_are_those_of_the_evaluation_transform_and_are_read_without_the_images(
    photos: Samples, root: str, tmp_path: Path
) -> None:
    pixels = expected(photos)

    assert prepare(photos, root) == [9]
    assert prepare(photos, root) == [0]
    file = kept(photos, root)
    assert file.open()
    shutil.rmtree(tmp_path / "photos")

    assert all(np.array_equal(file[i], pixels[i]) for i in range(9))
    assert np.array_equal(load_file(file.path)["pixels"], pixels)


def test_another_list_order_or_size_is_another_file(photos: Samples, root: str) -> None:
    files = [
        kept(photos, root),
        kept(photos.subset(range(8)), root),
        kept(photos.subset(range(9)[::-1]), root),
        pixel_file(root, photos, CentreCrop(8, 10, "bicubic")),
        pixel_file(root, photos, CentreCrop(8, 9, "bilinear")),
        pixel_file(root, photos, CentreCrop(8, (9, 10), "bicubic")),
        pixel_file(root, photos, CentreCrop(8, 9, "bicubic", "squash")),
        pixel_file(root, photos, CentreCrop(8, 9, "bicubic", "shortest", (1, 1, 1))),
    ]

    assert len({file.path for file in files if file}) == len(files)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".lock", ".part", ".safetensors"])
def test_what_lies_at_a_name_of_the_cache_costs_time_alone(
    photos: Samples, root: str, tmp_path: Path, suffix: str, kind: str
) -> None:
    (theirs := tmp_path / "theirs").write_text("kept")
    path = kept(photos, root).path.with_suffix(suffix)
    path.parent.mkdir(exist_ok=True)
    plant(kind, path, theirs)

    assert prepare(photos, root) == [9]

    assert theirs.read_text() == "kept"
    in_its_place = kind == "folder" and suffix == ".safetensors"
    assert bool(list(damaged_files(Path(root), [photos]))) == in_its_place


def test_an_image_that_changed_makes_the_file_be_written_anew(photos: Samples, root: str) -> None:
    prepare(photos, root)
    before = kept(photos, root)
    assert before.open()
    old = before[3].copy()
    Image.new("RGB", (10, 12), "red").save(photos.file(3) or "")

    assert not kept(photos, root).open()
    assert prepare(photos, root) == [9]

    assert same(kept(photos, root), photos)
    assert np.array_equal(before[3], old)  # a run that has the old file open goes on with it
    assert len(list(Path(root).glob("*.safetensors"))) == 1


def test_a_file_of_another_version_is_written_anew(photos: Samples, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "VERSION", "0, Pillow 1.0, torchvision 0.1")
        prepare(photos, root)

    assert prepare(photos, root) == [9]
    assert same(kept(photos, root), photos)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: b"x" * 99]
)
def test_a_file_that_is_not_whole_is_written_anew(damage: Callable[[bytes], bytes], photos: Samples, root: str) -> None:
    prepare(photos, root)
    path = kept(photos, root).path
    path.write_bytes(damage(path.read_bytes()))

    assert not kept(photos, root).open()
    assert prepare(photos, root) == [9]
    assert same(kept(photos, root), photos)


def write_elsewhere(samples: Samples, root: str) -> BaseProcess:
    """Another process that writes the file of ``samples``, and has begun to."""
    assert isinstance(samples.opener, FileOpener)
    begun = FORK.Event()

    class Slow(FileOpener):
        def __call__(self, position: int) -> Image.Image:
            begun.set()
            time.sleep(0.1)
            return super().__call__(position)

    slow = replace(samples, opener=Slow(samples.opener.root, samples.opener.names))
    process = FORK.Process(target=prepare, args=(slow, root))
    process.start()
    assert begun.wait(timeout=300)
    return process


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_used(photos: Samples, root: str) -> None:
    process = write_elsewhere(photos, root)
    process.kill()
    process.join()
    assert list(Path(root).glob("*.part"))

    assert not kept(photos, root).open()
    assert prepare(photos, root) == [9]

    assert same(kept(photos, root), photos)
    assert not list(Path(root).glob("*.part"))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_of_two_processes_one_writes_and_the_other_waits_for_it(photos: Samples, root: str) -> None:
    process = write_elsewhere(photos, root)

    assert prepare(photos, root) == [0]

    process.join()
    assert process.exitcode == 0
    assert same(kept(photos, root), photos)


def test_images_that_cannot_be_read_are_named_and_nothing_is_kept(photos: Samples, root: str) -> None:
    (photos.file(2) or Path()).write_bytes(b"")

    with pytest.raises(InputError, match=r"1 of 9 images cannot be used:\n  test: cannot read .*cat/2\.png"):
        prepare(photos, root)

    assert [path.suffix for path in Path(root).iterdir()] == [".lock"]


def test_two_sets_of_the_same_images_share_a_file_and_order_of_names_does_not_matter(
    photos: Samples, root: str
) -> None:
    part = photos.subset([1, 2])
    for sets in ({"a": photos, "b": part, "c": photos}, {"c": part, "b": photos, "a": photos}):
        with writing(root, sets, CROP) as checked:
            check_images(checked)
    assert [len(images) for images in checked.values()] == [0, 0, 0]

    assert same(kept(photos, root), photos)
    assert same(kept(part, root), part)
    assert len(list(Path(root).glob("*.safetensors"))) == 2


def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log(
    photos: Samples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    assert prepare(photos, str(tmp_path / "file")) == [9]

    (message,) = caplog.messages
    assert message.startswith(f"test is read anew each time: nothing is kept in {tmp_path}/file: ")


def test_a_disk_that_fills_up_while_writing_costs_a_line_in_the_log(
    photos: Samples, root: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert prepare(photos, root) == [9]

    assert not kept(photos, root).open()
    assert caplog.messages == ["evaluation images are not kept: [Errno 28] No space left on device"]


def test_nothing_is_kept_without_a_folder_or_of_images_that_are_no_files(photos: Samples, root: str) -> None:
    class Drawn:
        def __call__(self, position: int) -> Image.Image:
            return Image.new("RGB", (10, 10))

        def check(self, position: int) -> None:
            self(position)

    assert pixel_file(None, photos, CROP) is None
    assert pixel_file(root, Samples(("a",), (0,), Drawn()), CROP) is None
    assert prepare(photos, None) == [9]
    assert not Path(root).exists()


def test_nothing_is_written_among_the_images(photos: Samples, root: str, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "photos").rglob("*")}

    prepare(photos, root)

    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "photos").rglob("*")} == before


def test_a_copy_that_is_sent_to_another_process_opens_the_file_for_itself(photos: Samples, root: str) -> None:
    prepare(photos, root)
    file = kept(photos, root)
    file.open()

    copy = pickle.loads(pickle.dumps(file))

    assert len(pickle.dumps(file)) < 2000
    assert np.array_equal(copy[4], file[4])


def test_pixels_that_were_not_written_are_a_wrong_order(photos: Samples, root: str) -> None:
    with pytest.raises(RuntimeError, match="is not written, or of other images"):
        kept(photos, root)[0]


def damage(path: Path, num_bytes: int) -> None:
    """Zero the last bytes, which are those of the last image; the length stays."""
    with path.open("r+b") as file:
        file.seek(-num_bytes, os.SEEK_END)
        file.write(bytes(num_bytes))


def test_a_damaged_image_is_read_from_its_own_file_and_the_rest_is_written_anew(
    photos: Samples, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(photos, root)
    path = kept(photos, root).path
    assert list(damaged_files(Path(root), [photos])) == []
    damage(path, 20)
    assert list(damaged_files(Path(root), [photos.subset([1])])) == []  # another set's
    (line,) = damaged_files(Path(root), [photos])
    assert line.startswith(f"{path} is damaged: 1 of 9 images")

    file = kept(photos, root)
    assert same(file, photos)
    assert np.array_equal(file[8], expected(photos)[8])

    assert caplog.text.count(f"{path} is damaged: images are read anew") == 1
    assert prepare(photos, root) == [9]
    assert same(kept(photos, root), photos)


def test_a_damaged_header_or_checksum_is_told_by_a_look_at_the_files(photos: Samples, root: str) -> None:
    prepare(photos, root)
    path = kept(photos, root).path
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    assert "1 of 9 images" in next(damaged_files(Path(root), [photos]))
    assert same(kept(photos, root), photos)
    path.write_bytes(whole[:-1])

    assert "is damaged" in next(damaged_files(Path(root), [photos]))
