"""What is not the published file is never used, and mirrors are asked in order."""

import hashlib
from pathlib import Path

import pytest
from file_server import CONTENT, SHA256, Remote, Shelf

from kravl.data.download.fetch import RemoteFile, fetch
from kravl.runtime.errors import InputError

MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_file_comes_whole_and_nothing_else_is_left(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    got = fetch(remote(), tmp_path / "new/folder")

    assert got.path.read_bytes() == CONTENT
    assert (got.sha256, got.checked) == (SHA256, "sha256")
    assert [path.name for path in got.path.parent.iterdir()] == ["a.bin"]


def test_what_is_there_is_not_asked_for_again(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    first = fetch(remote(), tmp_path)

    assert fetch(remote(), tmp_path) == first
    assert len(shelf.asked) == 1


def test_a_wrong_file_is_kept_aside_and_the_next_mirror_is_asked(
    shelf: Shelf,
    remote: Remote,
    tmp_path: Path,
) -> None:
    shelf.files["bad.bin"] = b"something else"

    got = fetch(remote(f"{shelf.url}/bad.bin", f"{shelf.url}/a.bin"), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert (tmp_path / "a.bin.wrong-checksum").read_bytes() == b"something else"


@pytest.mark.parametrize(
    "facts", [{"sha256": "0" * 64}, {"sha256": None, "md5": "0" * 32}, {"sha256": None, "bytes": 5}]
)
def test_a_file_that_is_nowhere_right_is_not_used(remote: Remote, facts: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.bin: (its .*|it has 300,000 bytes, not 5); kept as .*wrong-checksum"):
        fetch(remote(**facts), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["a.bin.wrong-checksum"]


def test_a_wrong_file_on_disk_is_kept_aside_too(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"damaged")

    got = fetch(remote(), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert (tmp_path / "a.bin.wrong-checksum").read_bytes() == b"damaged"


def test_mirrors_are_asked_in_order_and_each_failure_has_its_reason(
    shelf: Shelf,
    remote: Remote,
    tmp_path: Path,
) -> None:
    urls = [f"{shelf.url}/gone", "http://127.0.0.1:9/a.bin", "ftp://127.0.0.1/a.bin", "no address", f"{shelf.url}/away"]
    shelf.redirects["away"] = "ftp://127.0.0.1/a.bin"
    drive = "https://drive.google.com/uc?id=1"

    with pytest.raises(InputError) as error:
        fetch(remote(*urls, drive), tmp_path)
    got = fetch(remote(*urls, f"{shelf.url}/a.bin"), tmp_path)

    lines = str(error.value).splitlines()
    reasons = (
        "404 Not Found",
        "refused",
        "only https, http, file",
        "only https, http, file",
        "unknown url type: ftp",
        "Google Drive",
    )
    assert len(lines) == 1 + len(reasons) + 1
    assert all(reason in line for reason, line in zip(reasons, lines[1:-1], strict=True)), lines
    assert lines[-1].endswith(f"put it at {tmp_path}/a.bin by hand")
    assert got.path.read_bytes() == CONTENT


def test_a_web_page_is_no_file(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    shelf.kind = "text/html; charset=utf-8"

    with pytest.raises(InputError, match="the server sent a web page instead of a file"):
        fetch(remote(sha256=None), tmp_path)


def test_without_a_stated_length_the_checksum_decides(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    shelf.says_length = False

    assert fetch(remote(md5=MD5, sha256=None), tmp_path).checked == "md5"


def test_without_a_checksum_the_file_is_taken_and_its_sha256_told(remote: Remote, tmp_path: Path) -> None:
    got = fetch(remote(sha256=None), tmp_path)

    assert (got.sha256, got.checked) == (SHA256, None)


def test_a_local_address_works_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "there.bin").write_bytes(CONTENT)
    remote = RemoteFile("a.bin", ((tmp_path / "missing").as_uri(), (tmp_path / "there.bin").as_uri()), sha256=SHA256)

    assert fetch(remote, tmp_path / "here").path.read_bytes() == CONTENT
