"""A picture is upright as its file says, once, whatever else is in its tags."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kravl.data.images import check_readable, decode_rgb, open_rgb, to_rgb, upright_rgb
from kravl.runtime.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (7, 9), dtype=np.uint16)


UPRIGHT = {  # EXIF's orientations
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 3),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: np.rot90,
}
MODES = {"RGB": RGB, "L": GREY, "RGBA": np.dstack([RGB, ALPHA]), "I;16": DEEP, "CMYK": np.dstack([RGB, ALPHA])}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", MODES)
def test_a_photograph_taken_sideways_is_turned_upright(
    mode: str, compression: str | None, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(MODES[mode], mode="CMYK" if mode == "CMYK" else None)
    stored.save(tmp_path / "turned.tif", exif=exif, compression=compression)
    if mode != "CMYK":
        stored.save(tmp_path / "turned.png", exif=exif)
    expected = UPRIGHT[orientation](np.asarray(to_rgb(stored)))

    for path in tmp_path.iterdir():
        assert np.array_equal(np.asarray(open_rgb(path)), expected)
        assert np.array_equal(np.asarray(decode_rgb(path.read_bytes(), "it")), expected)
        with Image.open(path) as opened:
            assert np.array_equal(np.asarray(upright_rgb(opened, "it")), expected)
            assert opened.filename == str(path)
            assert np.array_equal(np.asarray(upright_rgb(opened, "it")), expected)  # once


def test_what_was_made_of_a_picture_is_taken_as_its_pixels_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (tmp_path / "turned.png", tmp_path / "turned.tif"):
        Image.fromarray(RGB).save(path, exif=exif)
    opened = Image.open(tmp_path / "turned.png")

    for made in (opened.rotate(-90, expand=True), opened.transpose(Image.Transpose.ROTATE_270)):
        assert np.array_equal(np.asarray(upright_rgb(made, "it")), np.rot90(RGB, 3))
    assert np.array_equal(np.asarray(upright_rgb(opened.convert("RGB"), "it")), RGB)
    assert np.array_equal(np.asarray(upright_rgb(opened, "it")), np.rot90(RGB, 3))


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "qoi"])
def test_a_picture_whose_file_is_closed_is_told(kind: str, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / f"photo.{kind}")
    with Image.open(tmp_path / f"photo.{kind}") as opened:
        pass

    with pytest.raises(InputError, match="cannot read it: its file was closed before its pixels were loaded"):
        upright_rgb(opened, "it")


def _tiff(pixels: bytes, *tags: bytes) -> bytes:
    """Eight rows of grey pixels without compression."""
    sides = ((256, len(pixels) // 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 512), (278, 8), (279, len(pixels)))
    entries = [struct.pack("<HHII", tag, 4, 1, number) for tag, number in sides]
    entries = sorted([*entries, *tags], key=lambda entry: entry[:2][::-1])
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries)).ljust(512, b"\0") + pixels


def _exif(orientation: int, *tags: bytes) -> bytes:
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0), *tags]
    ifd = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda e: e[:2][::-1])) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + ifd + bytes(64)


SHADES = np.add.outer(20 * np.arange(8), 10 * np.arange(9)).astype(np.uint8)
ODD_TAGS = {  # as Pillow's rewriting of all tags met them
    "a number as text": struct.pack("<HHIf", 0x010F, 11, 1, 1.5),
    "text as a fraction": struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0"),
    "a folder beyond the file": struct.pack("<HHII", 0x8769, 4, 1, 2**32 - 1),
    "a folder at a negative place": struct.pack("<HHIi", 0x8825, 9, 1, -200),
    "more values than bytes": struct.pack("<HHII", 0x0132, 2, 2**31 - 1, 8),
    "XMP as a number": struct.pack("<HHIf", 700, 11, 1, 1.5),
    "XMP as text": struct.pack("<HHI4s", 700, 2, 4, b"abc\0"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what Pillow passes over
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_odd_tags_do_not_stop_a_photograph_from_being_turned_upright(kind: str, tmp_path: Path) -> None:
    for name, tag in ODD_TAGS.items():
        path = tmp_path / f"{name}.{kind.lower()}"
        if kind == "TIFF":
            path.write_bytes(_tiff(SHADES.tobytes(), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), tag))
        else:
            Image.fromarray(SHADES).save(path, kind, exif=_exif(6, tag), lossless=True, quality=100)

        check_readable(path)
        turned = open_rgb(path)

        assert np.abs(np.asarray(turned)[:, :, 0].astype(int) - np.rot90(SHADES, 3)).max() <= 3, name
        assert turned.tobytes() == decode_rgb(path.read_bytes(), name).tobytes()
        assert upright_rgb(Image.open(path), "it").tobytes() == turned.tobytes()
        assert upright_rgb(turned, "it").tobytes() == turned.tobytes()  # once


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what Pillow passes over
def test_tags_that_cannot_be_read_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", _exif(6)[:20], b"Exif\0\0"):
        Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=exif)
        assert open_rgb(tmp_path / "photo.jpg").size == (9, 7)


@pytest.mark.parametrize(("of_type", "value"), [(2, b"abc\0"), (7, b"\1\0\0\0"), (11, b"\0\0\x80?"), (5, bytes(4))])
def test_a_tiff_may_say_of_what_kind_it_is_in_any_type(of_type: int, value: bytes, tmp_path: Path) -> None:
    kind = struct.pack("<HHI", 254, of_type, 4 if of_type in (2, 7) else 1) + value
    (tmp_path / "scan.tif").write_bytes(_tiff(b"\x80" * 64, kind))

    check_readable(tmp_path / "scan.tif")
    assert set(np.asarray(open_rgb(tmp_path / "scan.tif")).flat) == {128}
