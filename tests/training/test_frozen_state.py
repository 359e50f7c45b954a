"""What training changes without saving it is found after the first step, whatever it is."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kravl.training.frozen_state import FrozenState, UnsavedChangeError, _checksums
from kravl.training.learner import Learner
from kravl.training.optim import OptimSettings

SETTINGS = OptimSettings(lr=1e-2, head_lr=None, weight_decay=0.1, warmup_steps=0, min_lr_ratio=0.0)


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    indices: Tensor


class Normed(nn.Module):
    """A frozen layer, a norm with running statistics, a buffer that counts, and a head that trains."""

    class_names = ("a", "b", "c")

    def __init__(self, disturb: Callable[["Normed"], object], trains_statistics: bool) -> None:
        super().__init__()
        self.disturb, self.trains_statistics = disturb, trains_statistics
        self.frozen = nn.Linear(12, 5).requires_grad_(False)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)
        self.register_buffer("count", torch.zeros((), dtype=torch.bool))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def head_parameters(self) -> list[nn.Parameter]:
        return []

    def train(self, mode: bool = True) -> "Normed":
        super().train(mode)
        self.norm.train(mode and self.trains_statistics)
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.disturb(self)
        return self.head(self.norm(self.frozen(images.flatten(1))))


def fit(disturb: Callable[[Normed], object], *statistics: str) -> Trainer:
    batches = [Batch(torch.randn(6, 3, 2, 2), torch.arange(6) % 3, torch.arange(6)) for _ in range(3)]
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[FrozenState()],
    )  # fmt: skip
    model = Normed(disturb, bool(statistics))
    trainer.fit(Learner(model, SETTINGS, 1, statistics=statistics), DataLoader(batches, batch_size=None))
    return trainer


STATISTICS = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")


def test_what_trains_is_saved_and_a_cache_may_change() -> None:
    fit(lambda model: model.cache.add_(1.0))
    fit(lambda model: None, *STATISTICS)


def test_statistics_are_part_of_a_checkpoint() -> None:
    first, other = (Learner(Normed(lambda model: None, True), SETTINGS, 1, statistics=STATISTICS) for _ in range(2))
    first.classifier.train()(torch.randn(6, 3, 2, 2))

    other.load_state_dict(first.state_dict())

    assert torch.equal(other.classifier.norm.running_mean, first.classifier.norm.running_mean)
    assert other.classifier.norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("disturb", "statistics", "name"),
    [
        (lambda model: model.frozen.bias.data[1].mul_(1 + 1e-6), (), "classifier.frozen.bias"),
        (lambda model: model.count.fill_(True), (), "classifier.count"),
        (lambda model: None, STATISTICS[1:], "classifier.norm.running_mean"),
    ],
)
def test_a_change_that_would_be_lost_stops_the_first_step(
    disturb: Callable[[Normed], object], statistics: tuple[str, ...], name: str
) -> None:
    with pytest.raises(UnsavedChangeError, match=f"changes 1 tensors that are not trained .*: {name};"):
        fit(disturb, *statistics)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.bool, torch.int64], ids=str)
def test_a_checksum_tells_one_element_apart(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 5).to(dtype).T  # not contiguous
    before = _checksums({"x": tensor, "empty": torch.empty(0)})
    tensor[4, 2] = 0

    after = _checksums({"x": tensor, "empty": torch.empty(0)})

    assert (before["x"] != after["x"], before["empty"] == after["empty"]) == (True, True)
