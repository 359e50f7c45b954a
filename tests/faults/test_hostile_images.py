"""Row 17: images that cannot be used are named before training, and none takes a gigabyte to find out."""

import multiprocessing
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults.campaign import Outcome, Row
from PIL import Image

from kravl.cli.data import main
from kravl.data.images import open_rgb
from kravl.data.loading.cache import check_images
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError

GIGABYTE = 2**30
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
Write = Callable[[Path], object]


def _half(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def _flipped(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_bomb(path: Path) -> None:
    """200 MB of text in the header of a small PNG."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * 2**20), 1))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + text + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))


BAD: dict[str, Write] = {
    "empty": lambda p: p.write_bytes(b""),
    "truncated": _half,
    "page": lambda p: p.write_text("<html>not found</html>"),
    "flipped": _flipped,
    "100 megapixels": lambda p: Image.new("1", (10_000, 10_000)).save(p, "PNG"),
    "400 megapixels": lambda p: Image.new("1", (20_000, 20_000)).save(p, "PNG"),
    "text bomb": _text_bomb,
    "floats": lambda p: Image.fromarray(np.full((4, 4), 1e9, np.float32)).save(p, "TIFF"),
    "32 bits": lambda p: Image.fromarray(np.full((4, 4), 2**30, np.int32)).save(p, "TIFF"),
    "link to itself": lambda p: p.symlink_to(p.name),
    "folder": lambda p: p.mkdir(),
    "random": lambda p: p.write_bytes(np.random.default_rng(1).bytes(5000)),
}


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(PIXELS[:, :32]).save(path, "JPEG", exif=exif)


SOUND: dict[str, Write] = {
    "sixteen bits": lambda p: Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(p, "PNG"),
    "palette": lambda p: Image.fromarray(PIXELS).convert("P").save(p, "PNG"),
    "cmyk": lambda p: Image.fromarray(PIXELS).convert("CMYK").save(p, "JPEG"),
    "turned": _turned,
    "narrow": lambda p: Image.new("RGB", (1, 500)).save(p, "PNG"),
}
EXPECTED = {"sixteen bits": ((4, 4), 128), "palette": ((64, 64), None), "cmyk": ((64, 64), None)}
EXPECTED |= {"turned": ((64, 32), None), "narrow": ((1, 500), 0)}


def write(folder: Path, kinds: dict[str, Write]) -> Path:
    """A training and a test folder of one class each, with a sound image and those of ``kinds`` to test on."""
    for split in ("train", "test"):
        (folder / split / "thing").mkdir(parents=True)
        Image.fromarray(PIXELS).save(folder / split / "thing/sound.png")
    for name, make in kinds.items():
        make(folder / f"test/thing/{name}.png")
    return folder


def _said(folder: Path) -> str:
    source = ImageFolder(str(folder), "test", train="train")
    try:
        check_images({split: source.split(split) for split in ("train", "test")})
    except InputError as error:
        return str(error)
    return ""


def _peak(folder: Path) -> int:
    """The most bytes that checking the images of ``folder`` adds to a process, whatever that has loaded before."""
    fork = multiprocessing.get_context("fork")
    peak = fork.Value("q")

    def most() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def check() -> None:
        before = most()
        _said(folder)
        peak.value = most() - before

    child = fork.Process(target=check)
    child.start()
    child.join()
    assert child.exitcode == 0
    return peak.value


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` of all kinds: bad ones are named, sound ones read as a viewer shows them."""
    bad = dict(list(BAD.items())[:count])
    said = _said(write(folder / "bad", bad))
    failures = [f"{name} is not named" for name in bad if f"{name}.png: " not in said]
    sound = dict(list(SOUND.items())[: count - len(bad)])
    write(folder / "sound", sound)
    for name in sound:
        image = open_rgb(folder / f"sound/test/thing/{name}.png")
        size, value = EXPECTED[name]
        if image.size != size or (value is not None and set(np.asarray(image).flat) != {value}):
            failures.append(f"{name} is read as {image.size}")
    peak = _peak(folder / "bad")
    failures += [f"{peak:,} bytes of memory"] if peak >= GIGABYTE else []
    return Outcome(len(bad) + len(sound), f"{len(bad)} named, {len(sound)} read, {peak / 2**20:.0f} MiB", failures)


ALL = len(BAD) + len(SOUND)
ROW = Row(17, "bad and odd images", "15 kinds named or read, less than 1 GiB added", ALL, ALL, run)


def test_every_bad_image_is_named_and_every_sound_one_is_read(tmp_path: Path) -> None:
    assert run(ALL, tmp_path).failures == []


def test_the_data_command_lists_every_bad_test_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, BAD)

    status = main(["verify", "folder", "--set", f"data.root={folder}", "data.train=train", "data.test=test"])

    said = capsys.readouterr().out
    assert status == 1
    assert [name for name in BAD if f"thing/{name}.png: " not in said] == []
