"""An archive is unpacked whole or not at all."""

import gzip
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import link, tar, zipped

from kravl.data.download.archive import unpack
from kravl.runtime.errors import InputError


def below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FILES = [("images/cat/1.jpg", b"one"), ("images/dog/é.jpg", b"two"), ("read me.txt", b"three")]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_files_appear_beside_what_is_there(kind: str, tmp_path: Path) -> None:
    make = zipped if kind == "zip" else tar
    archive = make(tmp_path / f"a.{kind}", FILES)
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images/mine.txt").write_bytes(b"mine")

    unpack(archive, folder)

    assert below(folder) == {**dict(FILES), "images/mine.txt": b"mine"}


def test_a_compressed_file_loses_its_ending(tmp_path: Path) -> None:
    (tmp_path / "labels.gz").write_bytes(gzip.compress(b"labels"))

    unpack(tmp_path / "labels.gz", tmp_path / "set")

    assert below(tmp_path / "set") == {"labels": b"labels"}


def test_links_within_the_folder_are_kept(tmp_path: Path) -> None:
    hard = link("b/hard", "a/file", tarfile.LNKTYPE)
    archive = tar(tmp_path / "a.tar.gz", [("a/file", b"x"), link("b/soft", "../a/file"), hard])

    unpack(archive, tmp_path / "set")

    assert (tmp_path / "set/b/soft").readlink() == Path("../a/file")
    assert below(tmp_path / "set") == {"a/file": b"x", "b/soft": b"x", "b/hard": b"x"}


def test_a_link_in_a_zip_is_only_a_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    unpack(tmp_path / "a.zip", tmp_path / "set")

    assert not (tmp_path / "set/link").is_symlink()
    assert below(tmp_path / "set") == {"link": b"/etc/passwd"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz"])
def test_a_truncated_archive_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    whole = [("good", b"good"), ("noise", os.urandom(100_000))]
    archive = tmp_path / f"a.{kind}"
    if kind == "gz":
        archive.write_bytes(gzip.compress(whole[1][1]))
    else:
        (zipped if kind == "zip" else tar)(archive, whole)
    archive.write_bytes(archive.read_bytes()[:50_000])

    with pytest.raises(InputError, match=r"cannot unpack .*: "):
        unpack(archive, tmp_path / "set")

    assert list((tmp_path / "set").iterdir()) == []


def test_a_damaged_or_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [("a", b"aaaa" * 1000)])
    content = archive.read_bytes()
    damaged, encrypted = bytearray(content), bytearray(content)
    damaged[40] ^= 0xFF
    encrypted[content.index(b"PK\x01\x02") + 8] |= 1

    for changed, message in ((damaged, "cannot unpack"), (encrypted, "'a' is encrypted")):
        archive.write_bytes(changed)
        with pytest.raises(InputError, match=message):
            unpack(archive, tmp_path / "set")


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", [])

    with pytest.raises(InputError, match="it holds no file"):
        unpack(archive, tmp_path / "set")


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"<html>")

    with pytest.raises(InputError, match="neither a zip or tar archive nor one of"):
        unpack(tmp_path / "a.bin", tmp_path / "set")


def test_a_file_that_differs_is_not_overwritten_and_one_that_does_not_is_no_obstacle(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    unpack(archive, tmp_path / "set")
    unpack(archive, tmp_path / "set")
    (tmp_path / "set/read me.txt").write_bytes(b"mine")
    (tmp_path / "set/images/cat/1.jpg").unlink()

    with pytest.raises(InputError, match=r"read me\.txt exists already and differs"):
        unpack(archive, tmp_path / "set")

    assert below(tmp_path / "set") == {"images/dog/é.jpg": b"two", "read me.txt": b"mine"}


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    left = tmp_path / "set/.a.zip.unpacking"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")

    unpack(archive, tmp_path / "set")

    assert below(tmp_path / "set") == dict(FILES)
