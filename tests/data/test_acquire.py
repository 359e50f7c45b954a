"""A set is brought to disk by its card alone, in as many attempts as it takes."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from file_server import Shelf

from kravl.data.download.acquire import acquire, on_disk
from kravl.runtime.errors import InputError

MakeCard = Callable[[str], None]
SPLIT = b'{"train": [], "val": [], "test": []}'


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def make_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCard:
    """Write the card of the set ``birds``."""
    facts = tmp_path / "datasets"
    (facts / "birds").mkdir(parents=True)
    monkeypatch.setattr("kravl.data.catalog.folder", lambda: facts)

    def make(text: str) -> None:
        (facts / "birds/card.yaml").write_text(f"title: Birds\nhomepage: https://example.org/birds\n{text}")

    return make


@pytest.fixture
def published(shelf: Shelf, make_card: MakeCard) -> Shelf:
    """Two archives, one with another inside, and a split file."""
    inner = tar_of({"images/wren/1.jpg": b"wren"})
    shelf.files = {
        "images.zip": zip_of({"pack/inner.tar.gz": inner}),
        "labels.txt.gz": gzip.compress(b"labels"),
        "split.json": SPLIT,
    }
    sha256 = hashlib.sha256(shelf.files["images.zip"]).hexdigest()
    make_card(
        f"""
folders: [birds, CUB]
needs: [images, notes/labels.txt]
files:
  - {{name: images.zip, urls: ["{shelf.url}/images.zip"], sha256: {sha256}, unpack: true, inner: [pack/inner.tar.gz]}}
  - {{name: labels.txt.gz, urls: ["{shelf.url}/labels.txt.gz"], unpack: true, to: notes}}
split_file: {{name: split.json, urls: ["{shelf.url}/split.json"], sha256: {hashlib.sha256(SPLIT).hexdigest()}}}
"""
    )
    return shelf


def test_files_are_fetched_checked_and_unpacked_to_their_places(published: Shelf, tmp_path: Path) -> None:
    lines: list[str] = []

    folder = acquire("birds", tmp_path / "data", False, lines.append)

    assert folder == tmp_path / "data/birds" == on_disk("birds", tmp_path / "data")
    assert (folder / "images/wren/1.jpg").read_bytes() == b"wren"
    assert (folder / "notes/labels.txt").read_bytes() == b"labels"
    assert (folder / "split.json").read_bytes() == SPLIT
    assert not list(folder.rglob("*.zip")) + list(folder.rglob("*.gz"))
    assert f"{folder}/images.zip: sha256 as published" in lines
    unknown = hashlib.sha256(published.files["labels.txt.gz"]).hexdigest()
    assert f"{folder}/notes/labels.txt.gz: no checksum known; sha256 {unknown}" in lines


def test_a_second_command_fetches_nothing(published: Shelf, tmp_path: Path) -> None:
    acquire("birds", tmp_path, False, print)
    published.asked.clear()

    acquire("birds", tmp_path, False, print)

    assert published.asked == []


def test_an_attempt_that_failed_goes_on_with_the_next_file(published: Shelf, tmp_path: Path) -> None:
    labels = published.files.pop("labels.txt.gz")
    with pytest.raises(InputError, match=r"cannot download labels\.txt\.gz:\n.*404"):
        acquire("birds", tmp_path, False, print)
    published.files["labels.txt.gz"] = labels
    published.asked.clear()

    acquire("birds", tmp_path, False, print)

    assert [name for name, _ in published.asked] == ["labels.txt.gz", "split.json"]


def test_archives_are_kept_where_that_is_asked_for(published: Shelf, tmp_path: Path) -> None:
    folder = acquire("birds", tmp_path, True, print)

    assert (folder / "images.zip").read_bytes() == published.files["images.zip"]


def test_images_that_somebody_else_has_put_there_are_left_alone(published: Shelf, tmp_path: Path) -> None:
    (tmp_path / "CUB/images").mkdir(parents=True)
    (tmp_path / "CUB/notes").mkdir()
    (tmp_path / "CUB/notes/labels.txt").write_bytes(b"mine")

    folder = acquire("birds", tmp_path, False, print)

    assert folder == tmp_path / "CUB"
    assert [name for name, _ in published.asked] == ["split.json"]
    assert (folder / "notes/labels.txt").read_bytes() == b"mine"


def test_images_that_were_deleted_are_fetched_again(published: Shelf, tmp_path: Path) -> None:
    folder = acquire("birds", tmp_path, False, print)
    (folder / "notes/labels.txt").unlink()

    acquire("birds", tmp_path, False, print)

    assert (folder / "notes/labels.txt").read_bytes() == b"labels"


def test_a_set_that_no_program_can_fetch_says_what_to_do(make_card: MakeCard, tmp_path: Path) -> None:
    make_card("manual: fill in the form")

    with pytest.raises(InputError, match=r"birds cannot be downloaded by a program: fill in the form \(https://exam"):
        acquire("birds", tmp_path, False, print)


def test_a_split_file_comes_even_where_the_images_are_fetched_by_hand(
    shelf: Shelf, make_card: MakeCard, tmp_path: Path
) -> None:
    shelf.files["split.json"] = SPLIT
    make_card(
        f'needs: [cars]\nmanual: ask the authors\nsplit_file: {{name: s.json, urls: ["{shelf.url}/split.json"]}}\n'
    )

    with pytest.raises(InputError, match="birds still lacks cars; ask the authors"):
        acquire("birds", tmp_path, False, print)

    assert (tmp_path / "birds/s.json").read_bytes() == SPLIT


def test_an_archive_without_what_the_set_needs_is_noticed(shelf: Shelf, make_card: MakeCard, tmp_path: Path) -> None:
    shelf.files["a.zip"] = zip_of({"other/1.jpg": b""})
    make_card(f'needs: [images]\nfiles: [{{name: a.zip, urls: ["{shelf.url}/a.zip"], unpack: true}}]\n')

    with pytest.raises(InputError, match="birds still lacks images"):
        acquire("birds", tmp_path, False, print)


def test_two_processes_do_not_download_to_one_folder(published: Shelf, tmp_path: Path) -> None:
    def interfere(line: str) -> None:
        with pytest.raises(InputError, match="another process is downloading to"):
            acquire("birds", tmp_path, False, print)
        lines.append(line)

    lines: list[str] = []
    acquire("birds", tmp_path, False, interfere)

    assert len(lines) == 5
