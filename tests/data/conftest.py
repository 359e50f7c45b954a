"""Small image folders, a preprocessing that needs no model, and a server of files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from file_server import CONTENT, SHA256, Remote, Shelf, serve
from PIL import Image

from kravl.data.download.fetch import RemoteFile

MakeTree = Callable[[str, Mapping[str, int]], Path]


@dataclass(frozen=True)
class TinyPreprocess:
    image_size: int = 8
    resize: int = 9
    mean: tuple[float, float, float] = (0.5, 0.4, 0.3)
    std: tuple[float, float, float] = (0.2, 0.3, 0.4)
    interpolation: str = "bicubic"


@pytest.fixture
def preprocess() -> TinyPreprocess:
    return TinyPreprocess()


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write ``count`` random 10 x 12 images to ``<tmp>/<folder>/<class>/<i>.png`` for each class; returns ``<tmp>``."""

    def make(folder: str, counts: Mapping[str, int]) -> Path:
        rng = np.random.default_rng(len(folder))
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
        return tmp_path

    return make


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """An HTTP server on this machine."""
    with serve() as it:
        yield it


@pytest.fixture
def remote(shelf: Shelf) -> Remote:
    """A file that is on the shelf."""
    shelf.files["a.bin"] = CONTENT

    def make(*urls: str, **facts: object) -> RemoteFile:
        return RemoteFile("a.bin", urls or (f"{shelf.url}/a.bin",), **({"sha256": SHA256} | facts))

    return make
