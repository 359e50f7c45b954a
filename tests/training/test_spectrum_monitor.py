"""Spectra of ΔW are logged once a chosen step and at the end."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kravl.runtime.errors import InputError
from kravl.training.spectrum_monitor import SpectrumMonitor, Trace, flatten, read_trace


class TinyLearner(LightningModule):
    """One site that moves by plain gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2, bias=False)
        nn.init.zeros_(self.linear.weight)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return (self.linear(batch[0]) - 1).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def quantities(self) -> dict[str, dict[str, float]]:
        """Norm and number of rows of the weight."""
        return {"linear": {"norm": self.linear.weight.norm().item(), "rows": 2.0}}

    def singular_values(self) -> dict[str, Tensor]:
        """Those of the weight."""
        return {"linear": torch.linalg.svdvals(self.linear.weight.detach())}


class NoSites:
    """What a linear probe has."""

    def quantities(self) -> dict[str, dict[str, float]]:
        """None."""
        return {}

    def singular_values(self) -> dict[str, Tensor]:
        """None."""
        return {}


def monitor(folder: Path, spectra: Any, every: int, histograms: Any = lambda values, step: None) -> SpectrumMonitor:
    return SpectrumMonitor(spectra, every, Trace(folder / "spectra.safetensors"), histograms)


def fit(folder: Path, monitor: SpectrumMonitor, learner: TinyLearner, **arguments: Any) -> list[dict[str, str]]:
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name="csv"),
        callbacks=[monitor],
        max_epochs=1,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(learner, DataLoader(TensorDataset(torch.ones(10, 4))))
    file = folder / "csv/version_0/metrics.csv"
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


def plain(watcher: SpectrumMonitor, steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[watcher],
        max_steps=steps,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (5, [5]), (0, [5]), (100, [5])])
def test_a_record_is_made_at_every_nth_step_and_at_the_last(tmp_path: Path, every: int, steps: list[int]) -> None:
    learner = TinyLearner()

    rows = fit(tmp_path, monitor(tmp_path, learner, every), learner, accumulate_grad_batches=2)

    assert [int(row["step"]) for row in rows] == steps
    assert list(read_trace(tmp_path / "spectra.safetensors").steps) == steps


def test_a_record_holds_the_weights_of_its_step(tmp_path: Path) -> None:
    learner = TinyLearner()

    rows = fit(tmp_path, monitor(tmp_path, learner, 1), learner)

    norms = [float(row["delta/norm"]) for row in rows]
    assert len(rows) == 10
    assert norms == sorted(norms)
    assert 0 < norms[0] < norms[-1] == learner.linear.weight.norm().item()
    assert not any(name.startswith("sites/") for name in rows[-1])


def test_no_sites_means_no_record(tmp_path: Path) -> None:
    assert fit(tmp_path, monitor(tmp_path, NoSites(), 1), TinyLearner()) == []
    assert not (tmp_path / "spectra.safetensors").exists()


def test_without_a_logger_the_file_is_kept_all_the_same(tmp_path: Path) -> None:
    learner = TinyLearner()

    plain(monitor(tmp_path, learner, 1), 2).fit(learner, DataLoader(TensorDataset(torch.ones(2, 4))))

    trace = read_trace(tmp_path / "spectra.safetensors")
    assert trace.end == {"linear": {"norm": pytest.approx(learner.linear.weight.norm().item()), "rows": 2.0}}
    torch.testing.assert_close(trace.singular_values, learner.singular_values(), check_dtype=False)


@pytest.mark.parametrize("of_sites", [False, True])
def test_histograms_hold_every_site_and_where_sites_are_asked_for_its_singular_values(
    tmp_path: Path, of_sites: bool
) -> None:
    learner, seen = TinyLearner(), []
    watcher = monitor(tmp_path, learner, 2, lambda values, step: seen.append((step, sorted(values))))
    watcher.of_sites = of_sites

    plain(watcher, 3).fit(learner, DataLoader(TensorDataset(torch.ones(3, 4))))

    quantities = ["spectrum/norm", "spectrum/rows"]
    of_each = [(3, ["sites/linear/singular_values"])] if of_sites else []
    assert seen == [(2, quantities), (3, quantities), *of_each]
    assert watcher.seconds > 0


def test_the_mean_over_sites_is_logged_and_every_site_under_one_prefix_where_it_is_asked_for() -> None:
    statistics = {"a": {"norm": 1.0, "stable_rank": 2.0}, "b.q": {"norm": 3.0, "stable_rank": 6.0}}

    assert flatten(statistics) == {"delta/norm": 2.0, "delta/stable_rank": 4.0}
    assert flatten(statistics, of_sites=True) == {
        "delta/norm": 2.0,
        "delta/stable_rank": 4.0,
        "sites/a/norm": 1.0,
        "sites/a/stable_rank": 2.0,
        "sites/b.q/norm": 3.0,
        "sites/b.q/stable_rank": 6.0,
    }


def test_a_negative_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every -1 steps"):
        monitor(tmp_path, NoSites(), -1)
