"""A store of what runs share: bounded, the oldest first to leave, copies where a caller may change what it gets."""

import os
from pathlib import Path

from kravl.runtime.shared import ENTRY, Store, file_state, shared, sharing


def test_what_has_not_been_used_for_longest_leaves_first() -> None:
    store = Store(10)
    for name in "ab":
        store.keep((name,), name, 4)
    assert store.get(("a",)) == "a"
    store.keep(("c",), "c", 4)
    assert [store.get((name,)) for name in "abc"] == ["a", None, "c"]

    store.keep(("larger than all",), "d", 11)
    assert [store.get((name,)) for name in "ac"] == ["a", "c"]


def test_a_caller_may_change_its_copy() -> None:
    with sharing(2 * ENTRY):
        for _ in range(3):
            value = shared(("list",), lambda: [1], copy=list)
            assert value == [1]
            value.append(2)


def test_nothing_is_kept_outside_and_nothing_without_a_key() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [shared(("a",), make), shared(("a",), make)] == [0, 1]
    with sharing(10 * ENTRY):
        assert [shared(("a",), make), shared(("a",), make), shared(None, make)] == [2, 2, 3]
    assert shared(("a",), make) == 4


def test_a_file_is_its_path_size_and_time_of_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert file_state(file) is None
    file.write_text("a")
    first = file_state(file)
    file.write_text("ab")
    assert first != file_state(file) == file_state(file)


def test_a_process_that_a_worker_forks_keeps_nothing_of_its_own(monkeypatch):
    with sharing(10_000):
        shared(("known",), lambda: b"1")
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in the process of a loader

        assert (shared(("mine",), lambda: b"2"), shared(("mine",), lambda: b"3")) == (b"2", b"3")
        assert shared(("known",), lambda: b"4") == b"1"
