"""Every kind of image file gives the pixels that a person sees; one that cannot be read is named with the reason."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from kravl.data.images import (
    decode_rgb,
    image_endings,
    is_image_file,
    open_rgb,
    raster_formats,
    to_rgb,
)
from kravl.runtime.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (7, 9), dtype=np.uint16)


def pixels(path: Path) -> np.ndarray:
    image = open_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_a_photograph_has_exactly_the_pixels_that_pillow_decodes(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(path)

    with Image.open(path) as image:
        assert np.array_equal(pixels(path), np.asarray(image.convert("RGB")))


def test_grey_pixels_become_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY > 127).save(tmp_path / "bits.png")

    assert np.array_equal(pixels(tmp_path / "grey.png"), np.repeat(GREY[..., None], 3, axis=2))
    assert np.array_equal(pixels(tmp_path / "bits.png"), np.repeat(255 * (GREY > 127)[..., None], 3, axis=2))


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([GREY, ALPHA])).save(tmp_path / "la.png")

    assert np.abs(pixels(tmp_path / "rgba.png") - on_white(RGB, ALPHA)).max() <= 1
    grey = np.repeat(GREY[..., None], 3, axis=2)
    assert np.abs(pixels(tmp_path / "la.png") - on_white(grey, ALPHA)).max() <= 1


def test_a_colour_key_is_transparent(tmp_path: Path) -> None:
    keyed = RGB.copy()
    keyed[2, 3] = (10, 20, 30)
    Image.fromarray(keyed).save(tmp_path / "key.png", transparency=(10, 20, 30))

    expected = keyed.copy()
    expected[2, 3] = 255
    assert np.array_equal(pixels(tmp_path / "key.png"), expected)


@pytest.mark.parametrize("transparent", [None, 3])
def test_a_palette_is_looked_up_and_its_transparent_entry_is_white(transparent: int | None, tmp_path: Path) -> None:
    palette = RNG.integers(0, 250, (16, 3), dtype=np.uint8)
    places = RNG.integers(0, 16, (7, 9), dtype=np.uint8)
    image = Image.fromarray(places)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "palette.png", **({} if transparent is None else {"transparency": transparent}))

    expected = palette[places]
    if transparent is not None:
        expected[places == transparent] = 255
    assert np.array_equal(pixels(tmp_path / "palette.png"), expected)


def test_cmyk_is_converted_to_what_is_printed(tmp_path: Path) -> None:
    inks = RNG.integers(0, 256, (7, 9, 4), dtype=np.uint8)
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "print.tif")
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")

    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert np.abs(pixels(tmp_path / "print.tif") - expected).max() <= 1
    assert np.abs(pixels(tmp_path / "red.jpg") - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(name: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / name)

    expected = np.rint(DEEP / 65535 * 255).astype(int)
    assert np.array_equal(pixels(tmp_path / name), np.repeat(expected[..., None], 3, axis=2))


def test_sixteen_bit_colour_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (7, 9, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 9, 7, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)

    assert np.abs(pixels(tmp_path / "deep.png") - deep / 257).max() <= 1


def test_integers_of_32_bits_are_read_as_16_or_refused() -> None:
    small = Image.fromarray(DEEP.astype(np.int32))
    large = Image.fromarray(DEEP.astype(np.int32) * 100)

    assert np.array_equal(np.asarray(to_rgb(small))[..., 0], np.rint(DEEP / 65535 * 255))
    with pytest.raises(ValueError, match="32-bit pixels from"):
        to_rgb(large)


def test_floating_point_pixels_are_refused_because_their_range_is_unknown(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")

    with pytest.raises(InputError, match=r"float\.tif: floating-point pixels have no known range"):
        open_rgb(tmp_path / "float.tif")


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])

    assert np.array_equal(pixels(tmp_path / "moving.gif")[0, 0], [255, 0, 0])


LOSSLESS = (
    *("BMP", "DDS", "DIB", "GIF", "ICO", "JPEG2000", "MSP", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF"),
    *("WEBP", "XBM"),
)
OPTIONS = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(16, 16)]}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_format_that_pillow_writes_is_read_by_any_of_its_endings(kind: str, tmp_path: Path) -> None:
    assert kind in raster_formats()
    image = Image.new("1", (16, 16), 1)
    image.putpixel((3, 5), 0)
    for ending in [end for end, name in Image.registered_extensions().items() if name == kind]:
        path = tmp_path / f"picture{ending}"
        (image if kind in ("MSP", "XBM") else image.convert("RGB")).save(path, kind, **OPTIONS.get(kind, {}))

        assert is_image_file(path)
        assert np.array_equal(pixels(path), np.asarray(image.convert("RGB")))


def test_the_endings_that_people_meet_are_images_and_those_of_drawings_and_films_are_not() -> None:
    photographs = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff"}
    assert photographs | {".jp2", ".ppm", ".pgm", ".pbm", ".tga", ".psd", ".qoi", ".ico"} <= image_endings()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".txt", ""} & image_endings()


@pytest.mark.parametrize(("name", "taken"), [("0001", True), ("a.jpg?w=640", True), ("a.2", True), ("a.jpg~", False)])
def test_where_the_ending_says_nothing_the_content_does(name: str, taken: bool, tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        Image.fromarray(RGB).save(tmp_path / name, kind)
        assert is_image_file(tmp_path / name) == taken
    (tmp_path / name).write_text("notes")
    assert not is_image_file(tmp_path / name)
    assert not is_image_file(tmp_path / "absent")


def test_postscript_is_refused_whatever_it_is_called_and_no_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript is started"))
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", "EPS")

    for read in (open_rgb, lambda path: decode_rgb(path.read_bytes(), str(path))):
        with pytest.raises(InputError, match=r"photo\.jpg: PostScript is a program, which kravl does not run"):
            read(tmp_path / "photo.jpg")


def test_a_colour_key_of_sixteen_bits_is_transparent(tmp_path: Path) -> None:
    deep = np.where(np.arange(63).reshape(7, 9) % 2, 300, DEEP.clip(min=301)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=300)

    shown = pixels(tmp_path / "deep.png")

    assert set(shown[deep == 300].flat) == {255}
    assert np.array_equal(shown[deep != 300][:, 0], ((deep[deep != 300].astype(int) * 255 + 32767) // 65535))
