"""An image file that cannot be used is named with the reason; a sound one passes."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from kravl.data.images import FileOpener, check_readable, is_image_file, open_rgb
from kravl.data.inspect.limits import allow_megapixels
from kravl.data.sources.folder import ImageFolder
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


def preview(path: Path, tags: dict[int, int | bytes]) -> None:
    """A TIFF as cameras write it: its first picture is said to be a small one of another."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    Image.fromarray(RGB).save(path, "TIFF", tiffinfo=directory)


def canon() -> bytes:
    """A TIFF that says it is a Canon's raw photograph, in the bytes between its header and its first directory."""
    file = BytesIO()
    Image.fromarray(RGB).save(file, "TIFF")
    tiff = bytearray(file.getvalue())
    directory = int.from_bytes(tiff[4:8], "little")
    entries = int.from_bytes(tiff[directory : directory + 2], "little")
    end = directory + 2 + 12 * entries + 4
    moved = tiff[directory:end]  # to the end of the file, to make room for two letters
    tiff[4:8] = len(tiff).to_bytes(4, "little")
    tiff += moved
    tiff[8:10] = b"CR"
    return bytes(tiff)


PHONE = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEheic" + bytes(60)
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
    "preview": (lambda path: preview(path, {254: 1}), "a raw photograph of a camera, in which Pillow finds a small"),
    "dng": (lambda path: preview(path, {50706: b"\1\4\0\0"}), "a raw photograph of a camera"),
    "canon": (lambda path: path.write_bytes(canon()), "a raw photograph of a camera"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "a pointer of Git LFS, not the image; run 'git lfs pull'",
    ),
    "phone": (lambda path: path.write_bytes(PHONE), "HEIC, as phones .* pip install pillow-heif"),
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


@pytest.mark.parametrize("name", ["a.NEF", "a.dng", "a.cr2", "a.cr3", "a.arw", "a.heic"])
def test_a_photograph_that_is_not_developed_is_no_image_of_a_folder_and_what_to_do_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cat").mkdir()
    preview(tmp_path / "cat" / name, {})
    if name == "a.heic":
        (tmp_path / "cat" / name).write_bytes(PHONE)
    assert not is_image_file(tmp_path / "cat" / name)
    with pytest.raises(InputError, match=rf"hold files but no image: cat; cat/{name} is (HEIC|a raw photograph).*JPEG"):
        ImageFolder(str(tmp_path)).split("train")
    with pytest.raises(InputError, match=rf"cannot read .*{name}: (HEIC|a raw photograph)"):
        open_rgb(tmp_path / "cat" / name)

    Image.fromarray(RGB).save(tmp_path / "cat/a.png")

    assert ImageFolder(str(tmp_path)).split("train").names == ("cat/a.png",)
    assert (
        f"1 files are left out as no images (1 {Path(name.lower()).suffix}), e.g. cat/{name}; cat/{name} is"
        in caplog.text
    )


def test_images_of_many_megapixels_are_read_where_a_setting_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRAVL_MAX_MEGAPIXELS", "40")  # and what it was, afterwards
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    Image.new("1", (10_000, 10_000), 1).save(tmp_path / "map.png")
    monkeypatch.delenv("KRAVL_MEGAPIXELS_OF", raising=False)
    with pytest.raises(InputError, match=r"pixels \(KRAVL_MAX_MEGAPIXELS=... in the environment allows more\)"):
        check_readable(tmp_path / "map.png")
    monkeypatch.setenv("KRAVL_MAX_MEGAPIXELS", "1e3")
    with pytest.raises(InputError, match=r"KRAVL_MAX_MEGAPIXELS='1e3': it must be a whole number from 1 to 10,000"):
        check_readable(tmp_path / "map.png")

    allow_megapixels(100)
    check_readable(tmp_path / "map.png")
    allow_megapixels(99)
    with pytest.raises(InputError, match=r"at most 99,000,000 are read \(loading.max_megapixels=100 allows it\)"):
        check_readable(tmp_path / "map.png")


@pytest.mark.parametrize("size", [(20_000, 1), (8, 4001)])
def test_a_strip_whose_longer_side_would_be_resized_to_gigabytes_is_refused(size, tmp_path):
    Image.new("L", size).save(tmp_path / "strip.png")
    Image.new("L", (8, 4000)).save(tmp_path / "narrow.png")

    with pytest.raises(InputError, match=f"{size[0]} x {size[1]} pixels: one side is over 500 times the other"):
        open_rgb(tmp_path / "strip.png")
    assert open_rgb(tmp_path / "narrow.png").size == (8, 4000)
