"""The learning curve is that of the steps, also of a run that was interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kravl.training.callbacks import MAX_POINTS, Checkpoints, LearningCurve
from kravl.training.trainer import make_trainer

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Counting(LightningModule):
    """Its loss is the number of the step, from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.weight.sum() * 0 + self.global_step
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.25)


def fit(folder: Path, steps: int, resume: Path | None = None, every: int = 1) -> None:
    callbacks = [LearningCurve(folder), Checkpoints(folder / "checkpoints", every)]  # a state has its part of the curve
    trainer = make_trainer(QUIET, {"max_steps": steps, "max_epochs": -1}, folder, False, callbacks)
    trainer.fit(Counting(), DataLoader(torch.zeros(10), batch_size=2), ckpt_path=resume)


def read(folder: Path) -> dict[str, list[float]]:
    return json.loads((folder / "curve.json").read_text())


def test_a_short_run_has_every_step(tmp_path: Path) -> None:
    fit(tmp_path, steps=7)

    curve = read(tmp_path)
    assert curve["step"] == [1, 2, 3, 4, 5, 6, 7]
    assert curve["loss"] == [0, 1, 2, 3, 4, 5, 6]
    assert curve["lr"] == [0.25] * 7


def test_a_long_run_has_the_mean_over_the_steps_of_each_point_and_the_last_step(tmp_path: Path) -> None:
    fit(tmp_path, steps=MAX_POINTS * 2 + 1, every=1000)

    curve = read(tmp_path)
    assert len(curve["step"]) <= MAX_POINTS
    assert curve["step"][:2] == [3, 6]
    assert curve["loss"][:2] == [1, 4]
    assert (curve["step"][-1], curve["loss"][-1]) == (401, pytest.approx(399.5))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # it is what a run resumes from
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("step", [MAX_POINTS + 4, MAX_POINTS + 5])  # within, and at the end of what was to be trained
def test_a_resumed_run_goes_on_with_the_curve_in_its_checkpoint(tmp_path: Path, step: int) -> None:
    fit(tmp_path, steps=MAX_POINTS + 5, every=MAX_POINTS + 4)
    whole = read(tmp_path)
    (tmp_path / "curve.json").unlink()

    fit(tmp_path, steps=MAX_POINTS + 5, resume=tmp_path / f"checkpoints/step={step}.ckpt")

    assert read(tmp_path) == whole
