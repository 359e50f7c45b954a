"""How long a run lasts, and which of Trainer's arguments are the user's."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kravl.runtime.errors import InputError
from kravl.training.callbacks import Checkpoints
from kravl.training.checkpoint import SafeCheckpointIO
from kravl.training.learner import Learner
from kravl.training.optim import OptimSettings
from kravl.training.trainer import check_settings, check_trainer, limits, make_trainer


class Steep(Learner):
    """A linear classifier whose gradient is far longer than any bound; ``norm`` is that of the last step."""

    def __init__(self) -> None:
        super().__init__(Linear(), OptimSettings(1e-3, None, 0.0, 0, 1.0), seed=1)
        self.norm = 0.0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.classifier(batch[0]), batch[1])

    def on_train_batch_end(self, *_: object) -> None:
        self.norm = float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in self.parameters()])))


class Linear(nn.Module):
    class_names = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.head.weight.data = torch.tensor([[0.0] * 3, [1.0] * 3])

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)


def test_steps_come_before_steps_a_shot_and_these_before_epochs():
    assert limits(epochs=10, steps=None, steps_per_shot=None, shots=4) == {"max_epochs": 10}
    assert limits(epochs=10, steps=None, steps_per_shot=500, shots=4) == {"max_steps": 2000, "max_epochs": -1}
    assert limits(epochs=10, steps=7, steps_per_shot=500, shots=4) == {"max_steps": 7, "max_epochs": -1}


@pytest.mark.parametrize("epochs, steps", [(None, None), (-1, None), (10, -2)])
def test_a_run_without_an_end_is_refused(epochs, steps):
    with pytest.raises(InputError, match=f"optim.epochs={epochs}, optim.steps={steps}"):
        limits(epochs, steps, None, 4)


def test_steps_a_shot_need_shots():
    with pytest.raises(InputError, match=r"needs shots; with shots=null give optim\.steps"):
        limits(None, None, 500, None)


def test_any_other_argument_of_trainer_is_the_users(tmp_path: Path):
    trainer = make_trainer({"accumulate_grad_batches": 3, "limit_train_batches": 2}, {}, tmp_path, logger=False)
    assert trainer.accumulate_grad_batches == 3
    assert trainer.limit_train_batches == 2


def test_checkpoints_are_kravls_own_format(tmp_path: Path):
    trainer = make_trainer({}, {}, tmp_path, False, [Checkpoints(tmp_path, 5)])
    assert isinstance(trainer.strategy.checkpoint_io, SafeCheckpointIO)


@pytest.mark.parametrize("key, setting", [("max_steps", "optim.steps"), ("logger", "tracking")])
def test_an_argument_that_kravl_holds_names_its_setting(tmp_path: Path, key, setting):
    with pytest.raises(InputError, match=f"trainer.{key} is set through {setting}"):
        make_trainer({key: 1}, {}, tmp_path, logger=False)


def test_no_advertisement_reaches_the_log(tmp_path: Path, caplog):
    caplog.set_level(logging.INFO)
    make_trainer({}, {}, tmp_path, logger=False)
    assert "litlogger" not in caplog.text


def test_gradients_are_clipped_in_mixed_precision_too(tmp_path: Path):
    rows = [(torch.full((1, 3), 1e3), torch.zeros(1, dtype=torch.long))] * 2
    module = Steep()
    settings = {"precision": "bf16-mixed", "gradient_clip_val": 0.5, "enable_progress_bar": False}

    make_trainer(settings, {"max_steps": 1, "max_epochs": -1}, tmp_path, False).fit(module, DataLoader(rows, None))

    assert module.norm == pytest.approx(0.5, rel=1e-3)


def test_memory_is_not_filled_to_find_bugs_of_torch(tmp_path: Path):
    make_trainer({"deterministic": "warn"}, {}, tmp_path, logger=False)
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("strategy", ["fsdp_cpu_offload", "deepspeed_stage_3"])
def test_a_strategy_that_splits_what_kravl_measures_is_refused_in_one_line(strategy: str) -> None:
    with pytest.raises(InputError, match=f"trainer.strategy={strategy} shards weights .*; use ddp, or fsdp") as caught:
        check_settings({"devices": 2, "strategy": strategy})

    assert "\n" not in str(caught.value)
    check_settings({"devices": 2, "strategy": "ddp"})
    check_settings({"devices": 2, "strategy": "fsdp", "precision": "bf16-mixed"})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"accelerator": "gpuu"}, "invalid accelerator name"),
        ({"strategy": "dpp"}, "invalid strategy name"),
        ({"precision": "bf61"}, "unknown trainer.precision 'bf61'"),
        ({"devices": "none"}, "should be an int > 0"),
    ],
)
def test_what_lightning_refuses_is_told_before_a_model_is_there(
    setting: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=said):
        check_trainer({"accelerator": "cpu", "devices": 1, **setting})
    check_trainer({"accelerator": "cpu", "devices": 1, "precision": "auto"})

    assert caplog.messages == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmark": 3}, "trainer.benchmark=3: it must be true or false or null"),
        ({"inference_mode": "maybe"}, "trainer.inference_mode=maybe: it must be true or false"),
        ({"detect_anomaly": -1}, "trainer.detect_anomaly=-1: it must be true or false"),
        ({"deterministic": "wran"}, "trainer.deterministic=wran: it must be true or false or 'warn' or null"),
        ({"profiler": {"_target_": "os.system"}}, "it must be text or null"),
        ({"accelerator": {"a": 1}}, "it must be text"),
        ({"num_nodes": True}, "trainer.num_nodes=True: it must be a whole number"),
        ({"precision": "bf61-mixed"}, "unknown trainer.precision 'bf61-mixed': did you mean 'bf16-mixed'?"),
        ({"accelerator": "tpu"}, "trainer: "),
        ({"precision": "transformer-engine"}, "trainer: "),
    ],
)
def test_an_argument_of_another_kind_is_a_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as refusal:
        check_trainer(settings)

    assert "\n" not in str(refusal.value)


def test_an_argument_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        check_settings({"min_steps": 99, "num_sanity_val_steps": 2, "devices": 1})

    assert sorted(caplog.messages) == [
        "trainer.min_steps: not used, optim.epochs and optim.steps say how long a run is",
        "trainer.num_sanity_val_steps: not used, kravl evaluates after training alone",
    ]


def test_half_precision_is_refused_where_a_process_sees_a_part_of_the_gradient() -> None:
    with pytest.raises(InputError, match=r"trainer.strategy=fsdp with trainer.precision=16-mixed: .*use bf16-mixed"):
        check_settings({"devices": 2, "strategy": "fsdp", "precision": "16-mixed"})
