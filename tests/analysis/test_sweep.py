"""Finished fits survive an interrupted process."""

from pathlib import Path

import pytest

from kravl.analysis.approximation.sweep import Ledger
from kravl.runtime.errors import InputError


def test_what_is_appended_is_there_for_the_next_process(tmp_path: Path):
    first = Ledger(tmp_path / "results.jsonl")
    first.append({"key": "a", "value": 1.5})
    first.append({"key": "b", "value": None})

    assert Ledger(tmp_path / "results.jsonl").records == first.records == {
        "a": {"key": "a", "value": 1.5},
        "b": {"key": "b", "value": None},
    }  # fmt: skip


@pytest.mark.parametrize("torn", ['{"key": "c", "val', '{"key": "c"}'])
def test_a_last_line_that_was_not_finished_is_dropped_and_the_next_one_stands_alone(tmp_path: Path, torn: str):
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a"}\n' + torn)

    ledger = Ledger(path)
    ledger.append({"key": "d"})

    assert list(Ledger(path).records) == ["a", "d"]


@pytest.mark.parametrize("line", ["not json", "[1]", '{"value": 1}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: str):
    (tmp_path / "results.jsonl").write_text(f'{{"key": "a"}}\n{line}\n{{"key": "b"}}\n')

    with pytest.raises(InputError, match=r"results.jsonl, line 2 is not a record"):
        Ledger(tmp_path / "results.jsonl")
