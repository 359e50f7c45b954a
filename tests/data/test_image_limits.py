"""How large an image may be is decided by its bytes, its sides and how it is stored, before it is decoded."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.images import check_readable, decode_rgb, open_rgb, raster_formats
from kravl.data.inspect.limits import SLOW
from kravl.runtime.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "PNG", "JPEG"])
def test_a_sparse_file_is_refused_by_its_bytes_before_it_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRAVL_MAX_MEGAPIXELS", raising=False)  # of a run in this process
    path = tmp_path / f"hole.{kind.lower()}"
    Image.fromarray(RGB).save(path, kind)
    os.truncate(path, 2**40)  # takes no disk

    for read in (open_rgb, check_readable):
        with pytest.raises(
            InputError, match=r"1,099,511,627,776 bytes; at most 424,857,600 are read \(.* goes up to 10,000\)"
        ):
            read(path)


def _packed_bmp(width: int, height: int, row: bytes) -> bytes:
    body = (row + b"\0\0") * height + b"\0\1"
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    sizes = struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024)
    info = struct.pack("<IiiHHIIIIII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + sizes + info + palette + body


SLOW_FILES = {
    "QOI": b"qoif" + struct.pack(">IIBB", 3000, 2000, 3, 0) + b"\x6a" * 6_000_000,
    "PPM": b"P6 3000 2000 254\n" + bytes(18_000_000),
    "BMP": _packed_bmp(3000, 2000, b"\1\7" * 3000),
}


@pytest.mark.parametrize("kind", SLOW_FILES)
def test_a_format_that_is_decoded_slowly_has_a_tenth_of_the_pixels(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KRAVL_MAX_MEGAPIXELS", "KRAVL_MEGAPIXELS_OF"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "large").write_bytes(SLOW_FILES[kind])
    enough = r"KRAVL_MAX_MEGAPIXELS=60 in the environment allows it"

    with pytest.raises(InputError, match=rf"3000 x 2000 pixels; at most 4,000,000 are read of {kind} .*{enough}"):
        check_readable(tmp_path / "large")
    with pytest.raises(InputError, match=rf"at most 4,000,000 are read of {kind}"):
        decode_rgb(SLOW_FILES[kind], "it")


def test_decoders_in_python_that_are_fast_have_all_of_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRAVL_MAX_MEGAPIXELS", raising=False)
    Image.new("RGB", (3000, 2000), "red").save(tmp_path / "deep.sgi", bpc=2)
    (tmp_path / "packed.bmp").write_bytes(_packed_bmp(3000, 2000, b"\xff\7" * 11 + bytes([195, 9])))

    assert open_rgb(tmp_path / "deep.sgi").getpixel((2999, 1999)) == (255, 0, 0)
    assert open_rgb(tmp_path / "packed.bmp").getpixel((2999, 1999)) == (9, 9, 9)
    raster_formats()
    assert set(Image.DECODERS) - SLOW == {"SGI16", "MSP", "bmp_rle"}  # measure one that Pillow adds
