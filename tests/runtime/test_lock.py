import json
import os
from pathlib import Path

import pytest

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
