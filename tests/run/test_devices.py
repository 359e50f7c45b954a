"""A run on a GPU is the run of a CPU: memory that runs out, one process of a distributed run, predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import CLIP

from kravl.backbones.vit import VitClassifier
from kravl.run.doctor.checklist import Checklist
from kravl.run.doctor.machine import check_device
from kravl.run.finished.restore import load_run
from kravl.run.prediction.scorer import Scorer
from kravl.run.train import train

MODEL = Path(__file__).parents[1] / "fixtures/tiny-clip.json"
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}
# a key's bias has no gradient but rounding, which AdamW scales up; a GPU adds in another order, and in 10 bits where
# a convolution takes them
WITHIN = {"rtol": 1e-3, "atol": 5e-4}


def adapter(runs: Path) -> dict[str, torch.Tensor]:
    """What a run has trained."""
    return load_file(next(runs.glob("*/*/adapter.safetensors")))


@pytest.mark.long
def test_training_beyond_memory_goes_on_in_micro_batches_to_the_same_weights(
    tiny_run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
) -> None:
    def command(runs: str) -> Any:
        return tiny_run(f"runs={tmp_path}/{runs}", f"trainer.accelerator={ACCELERATORS[device]}", "alphas=1")

    features = VitClassifier.image_features

    def memory_is_short(classifier: VitClassifier, images: torch.Tensor) -> torch.Tensor:
        # what the allocator really refuses: more than there is on any machine
        torch.empty(2**50 * (len(images) > 2 and classifier.training), dtype=torch.uint8, device=images.device)
        return features(classifier, images)

    train(command("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(VitClassifier, "image_features", memory_is_short)
        train(command("split"))

    assert "splitting loading.batch_size=8 into 4 micro-batches of 2" in caplog.text
    torch.testing.assert_close(adapter(tmp_path / "split"), adapter(tmp_path / "whole"), **WITHIN)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_of_a_distributed_run_is_a_plain_run(
    tiny_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, strategy: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # so that what Lightning sets is taken away again
        monkeypatch.delenv(name)
    open_clip.add_model_config(MODEL)

    def command(runs: str, *overrides: str) -> Any:
        machine = f"trainer.accelerator={ACCELERATORS[device]}"
        return tiny_run(f"runs={tmp_path}/{runs}", machine, "alphas=1", *overrides, backbone=CLIP)

    train(command("plain"))
    try:
        train(command("distributed", f"++trainer.strategy={strategy}"))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    torch.testing.assert_close(adapter(tmp_path / "distributed"), adapter(tmp_path / "plain"), **WITHIN)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_finished_run_scores_on_the_device_as_on_a_cpu(finished_run: Path, device: str, precision: str) -> None:
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = Scorer.of_run(load_run(finished_run), precision="32-true")(images)

    actual = Scorer.of_run(load_run(finished_run, device=device), precision=precision)(images)

    assert actual.device.type == "cpu"
    # logits are 100 cosines; bfloat16 and a GPU's convolutions round features to 8 and 10 bits
    torch.testing.assert_close(actual, expected, rtol=0, atol=2.0 if precision == "bf16-mixed" else 0.2)


def test_the_checklist_names_the_device_and_its_memory(device: str) -> None:
    checks = Checklist()

    found = check_device(checks, {"accelerator": ACCELERATORS[device], "devices": [0], "precision": "auto"})

    (told,) = (finding.text for finding in checks.findings if (finding.level, finding.what) == ("ok", "device"))
    assert found.type == device
    assert told.startswith(torch.cuda.get_device_name(0) if device == "cuda" else "CPU")
