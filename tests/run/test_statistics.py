"""Batch norms: frozen by default, trained and saved on request; evaluated again, a run has its own numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch import nn

from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.backbones.classifier import statistics
from kravl.config.compose import typed
from kravl.config.schema import CONFIGS
from kravl.run.build import build_run
from kravl.run.evaluate import evaluate_run
from kravl.run.train import check, train
from kravl.runtime.errors import InputError

RESNET = ("backbone.build.name=test_resnet", "backbone.build.image_size=null", "sites=null", "unfreeze=[*]", "shots=2",
          "optim.lr=1e-2", "spectrum_every=0", "loading.min_batches=2", "loading.eval_batch_size=8")  # fmt: skip


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def evaluated_again(run: Path) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("evaluate", [f"run={run}", "evaluation=in_domain", "alphas=1", "cache_root=null"])
    return evaluate_run(cfg)["metrics"]


@pytest.mark.parametrize("trained", [False, True])
def test_a_resnet_scores_the_same_when_it_is_evaluated_again(tiny_run, tmp_path: Path, trained: bool) -> None:
    torch.manual_seed(0)
    metrics = train(tiny_run(*RESNET, f"train_statistics={str(trained).lower()}", f"runs={tmp_path}"))
    (record,) = tmp_path.glob("*/*/metrics.json")

    saved = load_file(record.parent / "adapter.safetensors")
    assert any(name.endswith("running_mean") for name in saved) == trained
    assert evaluated_again(record.parent) == metrics["metrics"] == json.loads(record.read_text())["metrics"]


def test_a_resnet_of_adapted_convolutions_scores_the_same_when_it_is_evaluated_again(tiny_run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = ("adapter=lora", "unfreeze=[]", "targets=[layer*.conv?,layer4.*.downsample.*]", "spectrum_every=1")
    metrics = train(tiny_run(*RESNET, *adapted, f"runs={tmp_path}"))
    (record,) = tmp_path.glob("*/*/metrics.json")

    saved = load_file(record.parent / "adapter.safetensors")
    assert saved["layer2.0.conv1.a"].shape == (16, 9 * 32)
    assert not any("running" in name or "bn" in name for name in saved)
    assert evaluated_again(record.parent) == metrics["metrics"]


def test_norms_train_their_statistics_only_where_it_is_asked_for(tiny_run) -> None:
    for asked in (False, True):
        run = build_run(typed(tiny_run(*RESNET, f"train_statistics={str(asked).lower()}")))
        before = {name: run.classifier.get_buffer(name).clone() for name in statistics(run.classifier)}
        run.classifier.train()
        run.classifier(torch.randn(4, 3, 32, 32))

        moved = [not torch.equal(run.classifier.get_buffer(name), value) for name, value in before.items()]
        assert moved == [asked] * len(before)
        assert len(before) > 9
        assert not (asked and run.classifier.features_are_fixed())


def test_alpha_0_is_the_pretrained_model_and_a_share_lies_between() -> None:
    model, images = normed(), torch.randn(8, 3)
    pretrained = model.eval()(images)
    adapters = inject(model, Full, ["0"], ["2.*"], statistics(model))
    start = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    nn.init.normal_(adapters.parameters()[0])
    model.train()(torch.randn(50, 3) + 2.0)
    trained = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= trained.keys()
    model.eval()

    with adapters.disable_adapters():
        assert torch.equal(model(images), pretrained)
    adapters.merge(0.25)
    half = model[1].running_mean.clone()
    adapters.unmerge()

    torch.testing.assert_close(half, 0.75 * start["1.running_mean"] + 0.25 * trained["1.running_mean"])
    assert all(torch.equal(tensor, trained[name]) for name, tensor in adapters.state_dict().items())


def test_statistics_that_cannot_be_trained_are_refused(tiny_run) -> None:
    with pytest.raises(InputError, match="no norm of vit_tiny_random keeps running statistics"):
        build_run(typed(tiny_run("train_statistics=true")))
    with pytest.raises(InputError, match=r"train_statistics=true with checkpointing=true"):
        check(typed(tiny_run("train_statistics=true", "checkpointing=true")))
