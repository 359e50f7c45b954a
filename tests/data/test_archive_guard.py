"""A hostile archive never leaves its folder, and leaves nothing behind in it."""

import gzip
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
    "an old sparse file": [described(tarfile.GNUTYPE_SPARSE, 0)],
}


@pytest.mark.parametrize("case", ODD)
def test_what_tarfile_and_the_system_make_of_odd_fields_is_one_line(case: str, tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", [("good", b"good"), *ODD[case]])

    with pytest.raises(InputError, match=r"cannot unpack .*a\.tar\.gz: "):
        unpack(archive, tmp_path / "set")

    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("members", [[("a", b"x"), ("a/b", b"y")], [("x" * 300, b"x")]])
def test_names_in_a_zip_that_the_disk_refuses_are_one_line(members: list[tuple[str, bytes]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot unpack .*a\.zip: (Not a directory|File name too long)"):
        unpack(zipped(tmp_path / "a.zip", members), tmp_path / "set")


def test_a_damaged_bzip2_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.bz2").write_bytes(b"BZh9" + bytes(range(50)))

    with pytest.raises(InputError, match=r"cannot unpack .*a\.bz2: Invalid data stream"):
        unpack(tmp_path / "a.bz2", tmp_path / "set")
