"""An image is decoded once while there is room for it, and the pixels stay the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from kravl.data.cache import Cache
from kravl.data.source import Samples


@dataclass
class CountingOpener:
    opened: list[int] = field(default_factory=list)

    def __call__(self, position: int) -> Image.Image:
        self.opened.append(position)
        return Image.new("RGB", (10, 10), (position, 0, 0))

    def check(self, position: int) -> None:
        self(position)


def sixteen(opener: CountingOpener) -> Samples:
    return Samples(tuple(map(str, range(16))), (0,) * 16, opener)


def test_an_image_is_decoded_once(make_tree: Callable[..., Path]) -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener))

    images = [cache.image(i) for i in (3, 5, 3, 3, 5)]

    assert opener.opened == [3, 5]
    assert [np.asarray(image)[0, 0, 0] for image in images] == [3, 5, 3, 3, 5]


def test_what_does_not_fit_is_decoded_each_time() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener), max_bytes=2 * 300)

    for i in (0, 1, 2, 0, 1, 2):
        cache.image(i)

    assert opener.opened == [0, 1, 2, 2]
    assert cache.num_bytes == 600


def test_filling_decodes_ahead_what_fits() -> None:
    opener = CountingOpener()
    cache = Cache(sixteen(opener), max_bytes=4 * 300)

    cache.fill()
    cache.image(2)

    assert opener.opened == [0, 1, 2, 3]
