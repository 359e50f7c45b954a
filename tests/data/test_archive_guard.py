"""A hostile archive never leaves its folder, and leaves nothing behind in it."""

import gzip
import subprocess
import tarfile
from pathlib import Path

import pytest
from archives import Member, link, tar, zipped

from kravl.data.download.archive import unpack
from kravl.runtime.errors import InputError


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = kind, 1, 3
    return info


HOSTILE: dict[str, tuple[list[Member], str]] = {
    "a path up": ([("../out", b"x")], "'../out' leaves the folder"),
    "a path up from within": ([("a/../../out", b"x")], "leaves the folder"),
    "an absolute path": ([("/tmp/kravl-out", b"x")], "'/tmp/kravl-out' leaves the folder"),
    "a backslash": ([("..\\out", b"x")], "leaves the folder"),
    "a link up": ([link("a", "../out")], "the link 'a' -> '../out' leaves the folder"),
    "a link up from within": ([link("a/b/c", "../../../out")], "leaves the folder"),
    "an absolute link": ([link("a", "/etc/passwd")], "'/etc/passwd' leaves the folder"),
    "a link that turns back": ([link("a/b/up", "../.."), link("x", "a/b/up/..")], "'a/b/up/..' leaves the folder"),
    "a file through a link": ([link("a", "b"), ("a/x", b"x")], "written through a link"),
    "a file over a link": ([("b", b"y"), link("a", "b"), ("a", b"x")], "written through a link"),
    "a hard link up": ([link("a", "../out", tarfile.LNKTYPE)], "'../out' leaves the folder"),
    "an absolute hard link": ([link("a", "/etc/passwd", tarfile.LNKTYPE)], "'/etc/passwd' leaves the folder"),
    "a hard link to a link": (
        [("b", b""), link("s", "b"), link("a", "s", tarfile.LNKTYPE)],
        "points to no earlier file",
    ),
    "a hard link to nothing": ([link("a", "b", tarfile.LNKTYPE)], "points to no earlier file"),
    "a character device": ([special("null", tarfile.CHRTYPE)], "is a device"),
    "a block device": ([special("disk", tarfile.BLKTYPE)], "is a device"),
    "a pipe": ([special("pipe", tarfile.FIFOTYPE)], "is a device"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tar_leaves_nothing_behind(case: str, tmp_path: Path) -> None:
    members, message = HOSTILE[case]
    archive = tar(tmp_path / "a.tar.gz", [("good", b"good"), *members])

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar\.gz: ") as error:
        unpack(archive, tmp_path / "set")

    assert message in str(error.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "set"]
    assert not Path("/tmp/kravl-out").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/kravl-out", "a/../../out", "..\\out"])
def test_a_hostile_zip_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [("good", b"good"), (name, b"x")])

    with pytest.raises(InputError, match="leaves the folder"):
        unpack(archive, tmp_path / "set")

    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "set"]


def bomb(kind: str, path: Path) -> Path:
    content = b"\1" * 2_000_000
    if kind == "zip":
        return zipped(path / "a.zip", [("ones", content), ("__MACOSX/._ones", b"")])
    if kind == "tar":
        return tar(path / "a.tar.gz", [("ones", content)])
    if kind == "names":
        return tar(path / "a.tar.gz", [(f"{i}", b"") for i in range(1000)])
    (path / "a.gz").write_bytes(gzip.compress(content))
    return path / "a.gz"


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip", "names"])
def test_an_archive_that_grows_beyond_reason_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kravl.data.download.archive.FLOOR", 2**16)  # so that a small bomb is one
    archive = bomb(kind, tmp_path)

    with pytest.raises(InputError, match=r"it holds more than [\d,]+ bytes, the least of 200 times its own size"):
        unpack(archive, tmp_path / "set")

    assert archive.stat().st_size < 20_000
    assert list((tmp_path / "set").iterdir()) == []


def described(kind: bytes, size: int) -> tarfile.TarInfo:
    """A header that says what comes next, with ``size`` bytes to be read for it."""
    info = tarfile.TarInfo("described")
    info.type, info.size = kind, size
    return info


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_is_not_read_into_memory_whatever_its_size(kind: bytes, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tar.gz", "wb") as packed:
        packed.write(described(kind, 2**33).tobuf(tarfile.GNU_FORMAT))
        packed.write(bytes(2**20))

    with pytest.raises(InputError, match=r"a header of 8,589,934,592 bytes; at most 1,048,576 are read"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "set")


def _with(name: str, **fields: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.pax_headers = {key.replace("_", "."): value for key, value in fields.items()}
    return info


ODD: dict[str, list[Member]] = {
    "a file in a file": [("a", b"x"), ("a/b", b"y")],
    "a name that is too long": [("x" * 300, b"x")],
    "a time beyond all": [_with("a", mtime="1e400")],
    "a time beyond the system's": [_with("a", mtime="9" * 20)],
    "a sparse file of no size": [_with("a", GNU_sparse_size="x", GNU_sparse_map="0,1")],
    "a NUL in a name": [_with("a", path="a\0b")],
    "a size below zero": [described(tarfile.REGTYPE, -1024)],
    "a header of a size below zero": [described(tarfile.XHDTYPE, -512)],
    "headers without end": [described(tarfile.GNUTYPE_LONGNAME, 0)] * 500,
}


@pytest.mark.parametrize("case", ODD)
def test_what_tarfile_and_the_system_make_of_odd_fields_is_one_line(case: str, tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", [("good", b"good"), *ODD[case]])

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar\.gz: "):
        unpack(archive, tmp_path / "set")

    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("change", ["damaged", "cut"])
def test_a_header_that_is_damaged_is_not_the_end_of_the_archive(change: str, tmp_path: Path) -> None:
    plain = b"".join(tarfile.TarInfo(name).tobuf() for name in "abc")
    edited = plain[:600] + b"?" + plain[601:] if change == "damaged" else plain[:900]
    (tmp_path / "a.tar").write_bytes(edited)

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar: damaged header"):
        unpack(tmp_path / "a.tar", tmp_path / "set")

    assert list((tmp_path / "set").iterdir()) == []


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """A folder with a file of 200 parts of one block, each before a hole, and a plain file."""
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/holes").open("wb") as file:
        for part in range(200):
            file.seek(part * 2**16)
            file.write(bytes([1 + part]) * 4096)
        file.truncate(200 * 2**16)
    (tmp_path / "data/plain").write_bytes(b"plain")
    return tmp_path / "data"


def sparse(folder: Path, *options: str) -> Path:
    archive = folder.parent / "a.tar"
    subprocess.run(["tar", "-S", *options, "-cf", archive, "-C", folder, "holes", "plain"], check=True)
    return archive


@pytest.mark.parametrize("version", [None, "0.0", "0.1", "1.0"])
def test_a_sparse_archive_is_unpacked_whichever_way_its_parts_are_listed(version: str | None, holes: Path) -> None:
    archive = sparse(holes, *([f"--sparse-version={version}", "--format=posix"] if version else ["--format=gnu"]))
    assert archive.stat().st_size < 2**20 < (holes / "holes").stat().st_size

    unpack(archive, holes.parent / "set")

    for name in ("holes", "plain"):
        assert (holes.parent / "set" / name).read_bytes() == (holes / name).read_bytes()


def old_sparse(parts: list[tuple[int, int]], size: int, more: bytes = b"", content: int = 1024) -> bytes:
    """A member in the old format of GNU tar, whose header has room for four parts."""
    block = bytearray(described(tarfile.GNUTYPE_SPARSE, content).tobuf(tarfile.GNU_FORMAT))
    for place, (offset, count) in enumerate(parts):
        block[386 + 24 * place : 410 + 24 * place] = number(offset) + number(count)
    block[482], block[483:495] = bool(more), number(size)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + more + b"x" * content


def number(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big") if value >= 0 else b"\xff" + (256**11 + value).to_bytes(11, "big")


PARTS = b"".join(number(2**20 * part) + number(1) for part in range(1, 22)) + b"\1" + bytes(7)
SPARSE: dict[str, tuple[bytes, str]] = {
    "terabytes": (old_sparse([(0, 512)], 2**42), "it holds more than"),
    "terabytes in parts": (old_sparse([(0, 2**42)], 2**42), "are larger than the file"),
    "more than is stored": (old_sparse([(0, 4096)], 4096), "are larger than the file"),
    "beyond its end": (old_sparse([(2**42, 512)], 4096), "are larger than the file"),
    "in one place": (old_sparse([(0, 512), (0, 512)], 4096), "overlap or are out of order"),
    "out of order": (old_sparse([(1024, 512), (0, 512)], 4096), "overlap or are out of order"),
    "a part below zero": (old_sparse([(-512, 512)], 4096), "overlap or are out of order"),
    "a length below zero": (old_sparse([(0, -512)], 4096), "overlap or are out of order"),
    "a size below zero": (old_sparse([(0, 512)], -4096), "has -4,096 bytes"),
    "more parts that are missing": (old_sparse([], 512, b"\0" * 504 + b"\1" + bytes(7), 0), "damaged header"),
    "more parts that are no numbers": (old_sparse([], 512, b"x" * 504 + bytes(8)), "damaged header"),
    "parts without end": (
        old_sparse([], 2**40, PARTS * 2**14),
        "the headers of one file have more than 4,194,304 bytes",
    ),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", SPARSE)
def test_a_sparse_member_that_is_malformed_is_one_line(case: str, first: bool, tmp_path: Path) -> None:
    member, message = SPARSE[case]
    good = b"" if first else tarfile.TarInfo("good").tobuf()
    end = b"" if case == "more parts that are missing" else bytes(1024)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(good + member + end))

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar\.gz: ") as error:
        unpack(tmp_path / "a.tar.gz", tmp_path / "set")

    assert (first and message == "damaged header") or message in str(error.value)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize(
    "parts", [b"9\n1\n" * 128, b"x\n" * 256, b"9" * 512, b"99999999\n" + b"1\n" * 2**22 + b"1\n" * 252]
)
def test_the_map_of_a_sparse_file_in_paxs_format_is_read_within_bounds(parts: bytes, tmp_path: Path) -> None:
    info = _with("a", GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="4096")
    info.size = len(parts)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + parts)

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar: "):
        unpack(tmp_path / "a.tar", tmp_path / "set")

    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("members", [[("a", b"x"), ("a/b", b"y")], [("x" * 300, b"x")]])
def test_names_in_a_zip_that_the_disk_refuses_are_one_line(members: list[tuple[str, bytes]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot unpack .*a\.zip: (Not a directory|File name too long)"):
        unpack(zipped(tmp_path / "a.zip", members), tmp_path / "set")


def test_a_damaged_bzip2_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.bz2").write_bytes(b"BZh9" + bytes(range(50)))

    with pytest.raises(InputError, match=r"cannot unpack .*a\.bz2: Invalid data stream"):
        unpack(tmp_path / "a.bz2", tmp_path / "set")
