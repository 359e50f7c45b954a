"""The training step: schedule, parameter groups, what is saved, and a loss that is not a number."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kravl.adapters.dora import DoRA
from kravl.adapters.kra import KRAdapter
from kravl.adapters.vera import VeRA
from kravl.runtime.errors import InputError
from kravl.training.learner import DivergedError, Learner, derived_seed
from kravl.training.optim import OptimSettings, schedule

SETTINGS = OptimSettings(lr=1e-2, head_lr=1e-1, weight_decay=0.1, warmup_steps=0, min_lr_ratio=0.0)


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    indices: Tensor


class Small(nn.Module):
    """A frozen layer, a trained layer and a head."""

    class_names = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 5).requires_grad_(False)
        self.trained = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trained(self.frozen(images)))


class Pooled(nn.Module):
    """An image tower and a head, as a classifier has them apart."""

    class_names = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Linear(12, 5)
        self.head = nn.Linear(5, 3)

    def image_features(self, images: Tensor) -> Tensor:
        return self.tower(images.flatten(1)).tanh()

    def logits(self, features: Tensor) -> Tensor:
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.image_features(images))


def batch(images: Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.long), torch.arange(len(images)))


def test_the_schedule_warms_up_linearly_and_ends_at_its_floor():
    values = [schedule(step, total=110, warmup=10, floor=0.01) for step in range(111)]

    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1.0
    assert values[60] == pytest.approx(0.01 + 0.99 * 0.5)
    assert values[110] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_a_schedule_longer_than_planned_stays_at_its_floor():
    assert schedule(500, total=100, warmup=0, floor=0.1) == pytest.approx(0.1)


def test_only_what_trains_is_saved_and_it_comes_back():
    learner = Learner(Small(), SETTINGS, seed=1)
    state = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    assert sorted(state) == ["classifier.head.bias", "classifier.head.weight", "classifier.trained.bias",
                             "classifier.trained.weight"]  # fmt: skip

    other = Learner(Small(), SETTINGS, seed=1)
    other.load_state_dict(state)

    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


def test_a_state_of_other_parameters_is_refused():
    learner = Learner(Small(), SETTINGS, seed=1)
    with pytest.raises(InputError, match=r"trains other parameters .*'classifier.head.bias'"):
        learner.load_state_dict({k: v for k, v in learner.state_dict().items() if "bias" not in k})


def test_a_loss_that_is_not_a_number_stops_and_names_step_batch_and_images():
    learner = Learner(Small(), SETTINGS, seed=1)
    images = torch.full((2, 4), math.inf)

    with pytest.raises(DivergedError, match=r"the loss is nan at step 0, epoch 0, batch 7 \(images \[0, 1\]"):
        learner.training_step(batch(images), 7)


def test_seeds_of_neighbouring_steps_and_seeds_differ():
    seeds = [derived_seed(s, e, b) for s in range(5) for e in range(5) for b in range(5)]
    assert len(set(seeds)) == 125
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)
    assert max(seeds) < 2**63


def test_matrices_decay_vectors_do_not_and_the_head_has_its_own_rate():
    learner = Learner(Small(), SETTINGS, seed=1)
    learner.trainer = type("T", (), {"estimated_stepping_batches": 10})()

    groups = learner.configure_optimizers()["optimizer"].param_groups

    num_parameters = {(g["initial_lr"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    assert num_parameters == {(1e-2, 0.1): 25, (1e-2, 0.0): 5, (1e-1, 0.1): 15, (1e-1, 0.0): 3}


@pytest.mark.parametrize(
    ("adapter", "decayed"),
    [
        (KRAdapter(9, 8), {"u", "v"}),
        (VeRA(9, 8, rank=2), {"b", "d"}),  # at zero the update is zero, as for a matrix of another method
        (DoRA(9, 8, rank=2, alpha=2), {"a", "b"}),  # a magnitude of zero would be a weight of zero
    ],
    ids=lambda value: type(value).__name__,
)
def test_weight_decay_of_an_adapter_pulls_its_update_to_zero(adapter, decayed):
    model = Small()
    model.adapter = adapter
    learner = Learner(model, SETTINGS, seed=1)
    learner.trainer = type("T", (), {"estimated_stepping_batches": 10})()

    groups = learner.configure_optimizers()["optimizer"].param_groups

    pulled = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {name for name, p in adapter.named_parameters() if id(p) in pulled} == decayed


def test_a_checkpoint_whose_parameters_were_grouped_otherwise_is_refused():
    learner = Learner(Small(), SETTINGS, seed=1)
    checkpoint = {"optimizer_states": [{"param_groups": [{"params": [0, 1]}, {"params": [2, 3]}]}]}

    with pytest.raises(
        InputError, match=r"other groups of parameters \(\[2, 2\], now \[1, 1, 1, 1\]\); overwrite=true"
    ):
        learner.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_batch_in_pieces_has_the_loss_and_the_gradient_of_the_whole(size):
    model = Pooled()
    learner = Learner(model, SETTINGS, seed=1)
    learner.log = lambda *args, **kwargs: None
    images = torch.randn(8, 3, 2, 2)
    whole = learner.training_step(batch(images), 0)
    expected = torch.autograd.grad(whole, list(model.parameters()))

    learner.micro_batches.size = size
    loss = learner.training_step(batch(images), 0)

    torch.testing.assert_close(loss, whole)
    for gradient, reference in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_five_steps_are_adamw_by_its_formula_to_rounding():
    """AdamW as in Loshchilov and Hutter (2019), algorithm 2, in float64; torch's fused kernel runs in the learner."""
    learner = Learner(Small().double(), SETTINGS, seed=1)
    learner.trainer = type("T", (), {"estimated_stepping_batches": 10**9})()
    optimizer = learner.configure_optimizers()["optimizer"]
    expected = {id(p): p.detach().clone() for group in optimizer.param_groups for p in group["params"]}
    first = {key: torch.zeros_like(p) for key, p in expected.items()}
    second = {key: torch.zeros_like(p) for key, p in expected.items()}

    for step in range(1, 6):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
                m, v, w = first[id(p)], second[id(p)], expected[id(p)]
                m.mul_(0.9).add_(p.grad, alpha=0.1)
                v.mul_(0.999).add_(p.grad**2, alpha=0.001)
                w.mul_(1 - group["lr"] * group["weight_decay"])
                w.sub_(group["lr"] * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
        optimizer.step()

    for group in optimizer.param_groups:
        for p in group["params"]:
            torch.testing.assert_close(p.detach(), expected[id(p)], rtol=0, atol=1e-13)
