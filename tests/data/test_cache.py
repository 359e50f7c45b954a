"""An image is decoded once while there is room for it, its file is read once after that, and the pixels stay."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.loading.cache import Cache
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


@dataclass
class CountingOpener:
    opened: list[int] = field(default_factory=list)

    def __call__(self, position: int) -> Image.Image:
        self.opened.append(position)
        return Image.new("RGB", (10, 10), (position, 0, 0))

    def check(self, position: int) -> None:
        self.opened.append(-position)


def sixteen(opener: CountingOpener) -> Samples:
    return Samples(tuple(map(str, range(16))), (0,) * 16, opener)


@pytest.fixture
def photos(make_tree: Callable[..., Path]) -> Samples:
    return ImageFolder(str(make_tree("train", {"cat": 4})), train="train").split("train")


def test_an_image_is_decoded_once() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener))

    images = [cache[i] for i in (3, 5, 3, 3, 5)]

    assert opener.opened == [3, 5]
    assert [image[0, 0, 0] for image in images] == [3, 5, 3, 3, 5]


def test_what_does_not_fit_is_decoded_each_time() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener), max_pixel_bytes=2 * 300)

    for i in (0, 1, 2, 0, 1, 2):
        cache[i]

    assert opener.opened == [0, 1, 2, 2]
    assert cache.room["pixels"] == 0


def test_of_an_image_whose_pixels_do_not_fit_the_file_is_kept(photos: Samples) -> None:
    expected = [np.asarray(photos.image(i)) for i in range(4)]
    sizes = [file.stat().st_size for i in range(4) if (file := photos.file(i))]
    cache = Cache(photos, max_pixel_bytes=360, max_encoded_bytes=sum(sizes[1:3]))

    cache.fill()
    for i in range(3):
        (photos.file(i) or Path()).unlink()

    assert [np.array_equal(cache[i], expected[i]) for i in range(4)] == [True] * 4
    (photos.file(3) or Path()).unlink()
    with pytest.raises(InputError, match=r"cannot read .*cat/3\.png: no such file"):
        cache[3]


def test_what_is_kept_may_be_a_form_of_the_image_such_as_its_resized_centre(photos: Samples) -> None:
    cache = Cache(photos, form=lambda image: np.asarray(image.resize((2, 2))))

    cache.fill()

    assert np.array_equal(cache[1], np.asarray(photos.image(1).resize((2, 2))))
    assert cache.room["pixels"] == Cache(photos).room["pixels"] - 4 * 12


def test_filling_decodes_ahead_what_fits() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener), max_pixel_bytes=4 * 300, max_encoded_bytes=0)

    cache.fill()
    cache[2]

    assert opener.opened == [0, 1, 2, 3]


def test_the_check_of_an_image_keeps_it_and_one_that_cannot_be_kept_is_only_checked() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener), max_pixel_bytes=2 * 300, max_encoded_bytes=0)

    for i in (1, 2, 3, 4, 1):
        cache.check(i)
    cache[2]

    assert opener.opened == [1, 2, -3, -4]


def test_a_copy_that_is_sent_to_another_process_is_empty_and_works(photos: Samples) -> None:
    cache = Cache(photos)
    cache.fill()

    copy = pickle.loads(pickle.dumps(cache))

    assert len(pickle.dumps(cache)) < 2000
    assert np.array_equal(copy[3], cache[3])
