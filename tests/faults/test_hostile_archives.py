"""Row 16: archives that leave the folder, grow, or are none: refused, and nothing of them is left."""

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import link, tar, zipped
from faults.campaign import Outcome, Row

from kravl.data import catalog
from kravl.data.download.acquire import acquire
from kravl.runtime.errors import InputError

GROWN = 300 * 2**20  # bytes that a small archive unpacks to


def _zeros(path: Path) -> Path:
    info = tarfile.TarInfo("zeros")
    info.size = GROWN
    with tarfile.open(path, "w:gz") as archive, Path("/dev/zero").open("rb") as zeros:
        archive.addfile(info, zeros)
    return path


def _device(path: Path) -> Path:
    info = tarfile.TarInfo("device")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    return tar(path, [info])


def _truncated(path: Path) -> Path:
    zipped(path, [("a", bytes(range(256)) * 400)])
    path.write_bytes(path.read_bytes()[:300])
    return path


def _written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


ARCHIVES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "a path up": ("a.tar.gz", lambda p: tar(p, [("../out", b"x")])),
    "an absolute path": ("a.tar.gz", lambda p: tar(p, [("/tmp/kravl-escaped", b"x")])),
    "a path up in a zip": ("a.zip", lambda p: zipped(p, [("../out", b"x")])),
    "a link that leaves": ("a.tar.gz", lambda p: tar(p, [link("a", "../../out"), ("a/x", b"x")])),
    "a hard link that leaves": ("a.tar.gz", lambda p: tar(p, [link("a", "/etc/passwd", tarfile.LNKTYPE)])),
    "a device": ("a.tar.gz", _device),
    "a bomb in a tar": ("a.tar.gz", _zeros),
    "a bomb in a zip": ("a.zip", lambda p: zipped(p, [("zeros", bytes(GROWN))])),
    "a bomb of one file": ("a.gz", _written(gzip.compress(bytes(GROWN), 1))),
    "a truncated zip": ("a.zip", _truncated),
    "a page in place of it": ("a.zip", _written(b"<!DOCTYPE html><html>quota exceeded</html>")),
    "a wrong hash": ("a.zip", lambda p: zipped(p, [("good", b"good")])),
}


def problem(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Download the archive as a set by its card; what went wrong with refusing it, else empty."""
    name, make = ARCHIVES[kind]
    place = folder / kind.replace(" ", "_")
    place.mkdir()
    archive = make(place / name)
    digest = "0" * 64 if kind == "a wrong hash" else hashlib.sha256(archive.read_bytes()).hexdigest()
    cards = place / "cards/theirs"
    cards.mkdir(parents=True)
    entry = f"{{name: {name}, urls: ['{archive.as_uri()}'], unpack: true, sha256: '{digest}'}}"
    (cards / "card.yaml").write_text(f"files: [{entry}]\n")
    patch.setattr(catalog, "folder", lambda: cards.parent)
    try:
        acquire("theirs", place / "data", keep_archives=True, say=print)
    except InputError as error:
        left = {p.name for p in (place / "data/theirs").rglob("*")} - {".lock", name, f"{name}.wrong-checksum"}
        outside = {p.name for p in place.iterdir()} - {name, "cards", "data"}
        escaped = Path("/tmp/kravl-escaped").exists()
        return f"{kind} left {left | outside}" if left or outside or escaped or name not in str(error) else ""
    return f"{kind} was unpacked"


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` archives."""
    with pytest.MonkeyPatch.context() as patch:
        failures = [line for kind in list(ARCHIVES)[:count] if (line := problem(kind, folder, patch))]
    return Outcome(count, f"{len(failures)} escapes or leftovers", failures)


ROW = Row(16, "hostile archives", "12 archives, 0 escapes, 0 leftovers", len(ARCHIVES), len(ARCHIVES), run)


@pytest.mark.parametrize("kind", [kind for kind in ARCHIVES if "bomb in" not in kind])
def test_an_archive_that_must_not_be_unpacked_is_refused_and_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem(kind, tmp_path, monkeypatch) == ""


def test_a_sound_archive_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHIVES, "sound", ("a.tar.gz", lambda p: tar(p, [("good", b"good")])))

    assert problem("sound", tmp_path, monkeypatch) == "sound was unpacked"
