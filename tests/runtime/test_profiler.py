"""Seconds and memory of the phases of a run."""

import time

import pytest
import torch

from kravl.runtime import profiler
from kravl.runtime.profiler import Profiler, peak, seconds

MEBIBYTE = 2**20


def test_a_phase_has_its_seconds_and_its_own_peak():
    run = Profiler()

    with run("small"):
        time.sleep(0.02)
    with run("large"):
        torch.ones(64 * MEBIBYTE)  # 256 MiB
    with run("small again"):
        pass

    small, large, again = (run.costs[name] for name in ("small", "large", "small again"))
    assert seconds(run.costs, "small") >= 0.02
    assert seconds(run.costs, "small", "never begun") == seconds(run.costs, "small")
    assert large["peak_memory_bytes"] > small["peak_memory_bytes"] + 200 * MEBIBYTE
    assert peak(run.costs, "peak_memory_bytes") == large["peak_memory_bytes"]
    if profiler.CLEAR.exists():
        assert again["peak_memory_bytes"] < large["peak_memory_bytes"]


def test_a_phase_that_fails_leaves_no_entry():
    run = Profiler()
    with pytest.raises(ValueError, match="ended"), run("train"):
        raise ValueError("ended")
    assert run.costs == {}
    assert peak(run.costs, "peak_memory_bytes") == 0


def test_a_system_without_proc_has_the_peak_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(profiler, "STATUS", tmp_path / "absent")
    monkeypatch.setattr(profiler, "CLEAR", tmp_path / "absent/too")
    run = Profiler()
    with run("train"):
        pass
    assert run.costs["train"]["peak_memory_bytes"] > MEBIBYTE
