"""Files that kravl writes on: never somebody else's behind a link, and never a pipe."""

import os
from pathlib import Path

import pytest
from planted import KINDS, plant

from kravl.data.download.transfer import PartialFile
from kravl.runtime.files import write_atomic
from kravl.runtime.own_files import create_own, open_own


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (file := tmp_path / "theirs").write_text("kept")
    return file


def test_what_is_there_is_not_emptied_and_what_is_not_is_made(tmp_path, theirs):
    os.close(open_own(theirs))
    with os.fdopen(open_own(tmp_path / "new", os.O_WRONLY | os.O_APPEND), "a") as file:
        file.write("line")

    assert theirs.read_text() == "kept"
    assert (tmp_path / "new").read_text() == "line"


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND])  # of a lock, and of a log
@pytest.mark.parametrize("kind", [*KINDS, "dangling", "device"])
def test_anything_but_a_plain_file_is_refused(tmp_path, theirs, kind, flags):
    path = tmp_path / "own"
    match kind:
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "device":
            path = Path(os.devnull)
        case _:
            plant(kind, path, theirs)

    with pytest.raises(OSError, match=r"link|pipe|directory"):
        open_own(path, flags)

    assert theirs.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_a_new_file_takes_the_place_of_a_link(tmp_path, theirs):
    (link := tmp_path / "own").symlink_to(theirs)

    os.close(create_own(link))

    assert not link.is_symlink()
    assert theirs.read_text() == "kept"


def test_an_atomic_write_goes_through_no_link_of_its_temporary_name(tmp_path, theirs):
    (tmp_path / f".file.{os.getpid()}").symlink_to(theirs)

    write_atomic(tmp_path / "file", "new")

    assert theirs.read_text() == "kept"
    assert (tmp_path / "file").read_text() == "new"


def test_a_download_writes_through_no_link_of_its_names(tmp_path, theirs):
    (tmp_path / "a.zip.part").symlink_to(theirs)

    part = PartialFile(tmp_path / "a.zip.part")
    part.restart({"url": "x"})
    assert list(part.append(iter([b"new"]))) == [3]

    assert theirs.read_text() == "kept"
    assert (tmp_path / "a.zip.part").read_bytes() == b"new"
