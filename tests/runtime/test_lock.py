import errno
import json
import os
from pathlib import Path

import pytest

from kravl.runtime.files import remove_leftovers
from kravl.runtime.lock import InUseError, Lock


def test_the_owners_record_is_whole_when_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def watched(source: Path, target: Path) -> None:
        assert not target.exists()
        assert json.loads(source.read_text())["pid"] == os.getpid()
        link(source, target)

    monkeypatch.setattr(os, "link", watched)
    lock = Lock(tmp_path)

    assert json.loads((tmp_path / ".owner").read_text())["pid"] == os.getpid()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".owner"]
    lock.release()


def test_of_two_at_once_where_files_cannot_be_locked_one_is_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link
    owners: list[Lock] = []

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        first = Lock(tmp_path)  # while the other has written its record, and not yet put it in place
        owners.append(first)
        link(source, target)

    def nothing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", nothing)
    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(InUseError, match=f"in use by process {os.getpid()} "):
        Lock(tmp_path)

    [first] = owners
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".owner"]
    assert json.loads((tmp_path / ".owner").read_text()) == first._record
    first.release()


def test_a_record_that_a_killed_process_left_is_removed_by_the_next_run(tmp_path: Path):
    link = os.link
    kept: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", lambda source, target: (kept.append(source), link(source, target)))
        Lock(tmp_path).release()
    leftover = tmp_path / kept[0].name
    leftover.write_text("{")

    remove_leftovers(tmp_path)

    assert not leftover.exists()


@pytest.mark.parametrize("error", [PermissionError("Operation not permitted"), OSError("Function not implemented")])
def test_a_file_system_without_hard_links_has_one_owner_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error):
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "link", refused)
    lock = Lock(tmp_path)

    with pytest.raises(InUseError, match=f"in use by process {os.getpid()} "):
        Lock(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".owner"]
    lock.release()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
