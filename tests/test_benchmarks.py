"""The benchmarks run, and what they compare is equal; nothing is timed here."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


def rows(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What the benchmark records of itself with --quick."""
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--quick"])
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record.keys() >= {"title", "command", "commit", "machine", "versions", "settings"}
    return record["rows"]


def test_a_step_of_both_loops_is_compared_and_equal(monkeypatch, capsys):
    found = rows("step", monkeypatch, capsys)

    assert [row["loop"] for row in found] == ["plain", "kravl"] * 4
    for plain, ours in zip(found[::2], found[1::2], strict=True):
        assert ours["GFLOP"] < plain["GFLOP"]
        assert ours["saved MiB"] <= plain["saved MiB"]


def test_growth_is_measured_along_every_axis(monkeypatch, capsys):
    found = rows("scale", monkeypatch, capsys)

    assert {row["axis"].split(":")[0] for row in found} == {"width", "classes", "batch", "shots"}
    assert sum(row["exponent"] is not None for row in found) == 5


def test_a_job_is_taken_apart_into_its_phases(monkeypatch, capsys):
    found = rows("job", monkeypatch, capsys)

    assert {row["phase"] for row in found} >= {"assemble", "images", "features", "train", "evaluate", "all"}
    assert sum(row["share %"] for row in found if row["phase"] != "all") == pytest.approx(100)
