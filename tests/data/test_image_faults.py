"""An image file that cannot be used is named with the reason; a sound one passes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.images import FileOpener, check_readable, open_rgb
from kravl.runtime.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)


def truncated(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def damaged_png(path: Path) -> None:
    Image.fromarray(RGB).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not an image"),
    "page": (lambda path: path.write_text("<html>404</html>"), "not an image"),
    "half": (truncated, "truncated"),
    "checksum": (damaged_png, "broken|checksum|crc|decompress"),
    "huge": (lambda path: Image.new("1", (6400, 6400)).save(path, "PNG"), r"6400 x 6400 pixels; at most 40,000,000"),
    "bomb": (
        lambda path: Image.new("1", (10000, 10000)).save(path, "PNG"),
        "more than 40,000,000 pixels|at most 40,000,000",
    ),
    "folder": (lambda path: path.mkdir(), "directory"),
}


@pytest.mark.parametrize("read", [open_rgb, check_readable, lambda path: FileOpener(path.parent, [path.name]).check(0)])
@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    kind: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / f"{kind}.jpg"
    write, reason = BAD[kind]
    write(path)

    with pytest.raises(InputError, match=rf"(?is)cannot read .*{kind}\.jpg: .*({reason})"):
        read(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (640, 480)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_sound_file_of_any_size_passes_the_check(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.new(mode, size).save(tmp_path / "sound.jpg")

    check_readable(tmp_path / "sound.jpg")

    assert open_rgb(tmp_path / "sound.jpg").size == size
