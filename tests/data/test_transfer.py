"""A download that was cut off goes on where it stopped, if the file is still the same."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_server import CONTENT, Remote, Shelf

from kravl.data.download.fetch import fetch
from kravl.runtime.errors import InputError


def test_after_a_cut_only_the_rest_is_asked_for(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    shelf.cuts["a.bin"] = [100_000, 50_000]

    got = fetch(remote(), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert shelf.asked == [("a.bin", None), ("a.bin", "bytes=100000-"), ("a.bin", "bytes=150000-")]


def test_a_later_process_goes_on_with_what_an_earlier_one_has(
    shelf: Shelf,
    remote: Remote,
    tmp_path: Path,
) -> None:
    shelf.cuts["a.bin"] = [100_000, 0]
    with pytest.raises(InputError, match=r"the connection ended after 100,000 of 300,000 bytes(.|\n)*run the command"):
        fetch(remote(), tmp_path)

    got = fetch(remote(), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert shelf.asked[-1] == ("a.bin", "bytes=100000-")


def test_a_killed_process_has_kept_what_came(shelf: Shelf, remote: Remote, tmp_path: Path) -> None:
    shelf.cuts["a.bin"] = [100_000]
    shelf.stalls.clear()
    program = (
        "import pathlib, sys\n"
        "from kravl.data.download.fetch import fetch\n"
        "from kravl.data.download.fetch import RemoteFile\n"
        "fetch(RemoteFile('a.bin', (sys.argv[1],)), pathlib.Path(sys.argv[2]))\n"
    )
    part = tmp_path / "a.bin.part"
    with subprocess.Popen([sys.executable, "-c", program, f"{shelf.url}/a.bin", str(tmp_path)]) as process:
        while process.poll() is None and not (part.is_file() and part.stat().st_size == 100_000):
            time.sleep(0.01)
        process.kill()
    shelf.stalls.set()

    got = fetch(remote(), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert shelf.asked == [("a.bin", None), ("a.bin", "bytes=100000-")]


def test_a_server_without_ranges_is_asked_for_the_whole_again(
    shelf: Shelf,
    remote: Remote,
    tmp_path: Path,
) -> None:
    shelf.knows_ranges = False
    shelf.cuts["a.bin"] = [100_000]

    got = fetch(remote(), tmp_path)

    assert got.path.read_bytes() == CONTENT
    assert shelf.asked == [("a.bin", None), ("a.bin", "bytes=100000-")]


@pytest.mark.parametrize("etag", ['"first"', None, 'W/"weak"'])
def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    shelf: Shelf,
    remote: Remote,
    etag: str | None,
    tmp_path: Path,
) -> None:
    other = CONTENT[::-1] + b"more"
    shelf.etag = etag
    shelf.cuts["a.bin"] = [100_000, 0]
    with pytest.raises(InputError):
        fetch(remote(sha256=None), tmp_path)
    shelf.files["a.bin"], shelf.etag = other, etag and etag.replace("first", "second")

    got = fetch(remote(sha256=None), tmp_path)

    assert got.path.read_bytes() == other


@pytest.mark.parametrize("length", ["abc", "-5", "1e9", "0x10", "9" * 5000, ""])
def test_a_length_that_is_no_number_is_one_line(shelf: Shelf, remote: Remote, tmp_path: Path, length: str) -> None:
    shelf.says_length = length
    if not length:  # as if the server did not say
        assert fetch(remote(), tmp_path).path.read_bytes() == CONTENT
        return
    with pytest.raises(InputError, match="the server says that the file has ") as caught:
        fetch(remote(), tmp_path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "facts", ["[]", "{", '{"url": 1}', '{"url": "URL", "etag": 5, "modified": null, "total": 300000}', '{"url": "URL"}']
)
def test_facts_that_kravl_does_not_write_begin_the_file_anew(
    shelf: Shelf, remote: Remote, tmp_path: Path, facts: str
) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:9])
    (tmp_path / "a.bin.part.json").write_text(facts.replace("URL", f"{shelf.url}/a.bin"))

    assert fetch(remote(), tmp_path).path.read_bytes() == CONTENT
    assert shelf.asked == [("a.bin", None)]
