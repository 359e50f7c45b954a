"""The file of a run's spectra: what goes in comes out, also after an interruption."""

from pathlib import Path

import pytest
import torch

from kravl.runtime.errors import InputError
from kravl.training.spectrum_monitor import Trace, read_trace

AT = {step: {"a.q": {"norm": step / 4, "overlap": 0.5}, "b": {"norm": 2.0, "overlap": 0.0}} for step in (2, 4, 6)}


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """A file with three steps."""
    made = Trace(tmp_path / "spectra.safetensors")
    for step, statistics in AT.items():
        made.add(step, statistics)
    return made


def test_what_is_recorded_is_read_back(trace: Trace) -> None:
    trace.finish({"a.q": torch.tensor([2.0, 1.0]), "b": torch.tensor([1.0])})

    loaded = read_trace(trace.path)

    assert loaded.steps == AT
    assert loaded.end == AT[6]
    assert {site: values.tolist() for site, values in loaded.singular_values.items()} == {
        "a.q": [2.0, 1.0],
        "b": [1.0],
    }


def test_equal_records_make_equal_files(trace: Trace, tmp_path: Path) -> None:
    other = Trace(tmp_path / "other.safetensors")
    for step, statistics in AT.items():
        other.add(step, statistics)

    assert other.path.read_bytes() == trace.path.read_bytes()


def test_an_interrupted_run_keeps_what_it_recorded_before_the_step_that_it_goes_on_from(trace: Trace) -> None:
    resumed = Trace(trace.path)

    resumed.resume(5)
    resumed.add(6, AT[2])

    assert read_trace(trace.path).steps == {2: AT[2], 4: AT[4], 6: AT[2]}


def test_a_run_that_starts_anew_forgets_an_earlier_file(trace: Trace) -> None:
    anew = Trace(trace.path)

    anew.resume(0)
    anew.add(2, AT[4])

    assert read_trace(trace.path).steps == {2: AT[4]}


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "spectra.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match="cannot be read as the spectra of a run"):
        read_trace(path)
