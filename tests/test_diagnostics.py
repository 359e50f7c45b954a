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

from kravl.diagnostics import SpectrumMonitor, flatten
from kravl.errors import InputError


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

    def statistics(self) -> dict[str, dict[str, float]]:
        """Norm and number of non-zero rows of the weight."""
        return {"linear": {"norm": self.linear.weight.norm().item(), "rows": 2.0}}


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


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (5, [5]), (0, [5]), (100, [5])])
def test_a_record_is_made_at_every_nth_step_and_at_the_last(tmp_path: Path, every: int, steps: list[int]) -> None:
    learner = TinyLearner()

    rows = fit(tmp_path, SpectrumMonitor(learner.statistics, every), learner, accumulate_grad_batches=2)

    assert [int(row["step"]) for row in rows] == steps


def test_a_record_holds_the_weights_of_its_step(tmp_path: Path) -> None:
    learner = TinyLearner()

    rows = fit(tmp_path, SpectrumMonitor(learner.statistics, 1), learner)

    norms = [float(row["delta/linear/norm"]) for row in rows]
    assert len(rows) == 10
    assert norms == sorted(norms)
    assert 0 < norms[0] < norms[-1] == learner.linear.weight.norm().item()
    assert rows[-1]["delta/norm"] == rows[-1]["delta/linear/norm"]


def test_no_sites_means_no_record(tmp_path: Path) -> None:
    assert fit(tmp_path, SpectrumMonitor(dict, 1), TinyLearner()) == []


def test_without_a_logger_no_spectrum_is_computed() -> None:
    def fail() -> dict[str, dict[str, float]]:
        raise AssertionError("computed in vain")

    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[SpectrumMonitor(fail, 1)],
        max_steps=2,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(TinyLearner(), DataLoader(TensorDataset(torch.randn(2, 4))))

    assert trainer.global_step == 2


def test_the_mean_over_sites_stands_beside_every_site() -> None:
    flat = flatten({"a": {"norm": 1.0, "stable_rank": 2.0}, "b.q": {"norm": 3.0, "stable_rank": 6.0}})

    assert flat == {
        "delta/a/norm": 1.0,
        "delta/a/stable_rank": 2.0,
        "delta/b.q/norm": 3.0,
        "delta/b.q/stable_rank": 6.0,
        "delta/norm": 2.0,
        "delta/stable_rank": 4.0,
    }


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(InputError, match="every -1 steps"):
        SpectrumMonitor(dict, -1)
