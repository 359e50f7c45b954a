"""Singular values of what a run added, read back from its folder."""

from pathlib import Path

import pytest
import torch

from kravl.record import find_run
from kravl.restore import saved_config
from kravl.run import train
from kravl.spectra import mean_decay, singular_values


def test_the_values_are_those_of_the_update_that_was_trained(tiny_run, tmp_path: Path) -> None:
    train(tiny_run("method=lora", "adapter.rank=2"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")

    values = singular_values(find_run(str(folder)))

    assert values
    for found in values.values():
        assert found.dtype == torch.float64
        assert found[0] > 0
        assert found[2:].max() < 1e-6 * found[0]


def test_a_run_without_adapted_matrices_has_none(tiny_run, tmp_path: Path) -> None:
    train(tiny_run("method=linear_probe"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")

    assert singular_values(find_run(str(folder))) == {}


def test_the_decay_compares_matrices_of_different_sizes_by_share_of_their_rank() -> None:
    short, long = torch.tensor([4.0, 3.0, 1.0]), torch.tensor([2.0, 2.0, 1.0, 0.5, 0.5])

    assert mean_decay({"a": short, "b": long}, points=3) == pytest.approx([1.0, (0.75 + 0.5) / 2, 0.25])


def test_what_did_not_change_has_no_part_in_the_decay() -> None:
    assert mean_decay({"a": torch.zeros(3), "b": torch.tensor([2.0, 1.0])}, points=2) == [1.0, 0.5]
    assert mean_decay({"a": torch.zeros(3)}) == []


def test_a_config_that_no_longer_fits_is_one_line(tiny_run, tmp_path: Path) -> None:
    train(tiny_run("method=linear_probe"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    (folder / "config.yaml").write_text("optim: {speed: 3}\n")

    with pytest.raises(ValueError, match=r"config.yaml does not fit: .*speed"):
        saved_config(find_run(str(folder)), {})
