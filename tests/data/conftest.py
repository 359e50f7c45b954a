"""A preprocessing that needs no model, and a file that is served."""

from dataclasses import dataclass

import pytest
from file_server import CONTENT, SHA256, Remote, Shelf

from kravl.data.download.fetch import RemoteFile


@dataclass(frozen=True)
class TinyPreprocess:
    image_size: int = 8
    resize: int = 9
    mean: tuple[float, float, float] = (0.5, 0.4, 0.3)
    std: tuple[float, float, float] = (0.2, 0.3, 0.4)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill: tuple[int, int, int] = (0, 0, 0)


@pytest.fixture
def preprocess() -> TinyPreprocess:
    return TinyPreprocess()


@pytest.fixture
def remote(shelf: Shelf) -> Remote:
    """A file that is on the shelf."""
    shelf.files["a.bin"] = CONTENT

    def make(*urls: str, **facts: object) -> RemoteFile:
        return RemoteFile("a.bin", urls or (f"{shelf.url}/a.bin",), **({"sha256": SHA256} | facts))

    return make
