"""Adapting a pretrained CLIP to real pictures helps, and the result is the same model however it is kept."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from hydra import compose, initialize_config_dir

from kravl.backbones.tiny import WEIGHTS
from kravl.config.schema import CONFIGS
from kravl.run.evaluate import evaluate_run
from kravl.run.finished.restore import restore
from kravl.run.finished.saved import saved_config
from kravl.run.train import train
from kravl.tracking.run_folder import find_run

pytestmark = pytest.mark.long

MARGIN = 0.05  # half of what two epochs give here; experiments/quickstart has three


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KRAdapter on 16 pictograms a class, as in the quickstart."""
    runs = tmp_path_factory.mktemp("runs")
    overrides = [
        "experiment=quickstart_kra",
        "optim.epochs=2",
        "optim.warmup_steps=2",
        "evaluation=in_domain",
        f"runs={runs}",
        "trainer.accelerator=cpu",
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        train(compose("train", overrides))
    (folder,) = runs.glob("*/seed*")
    return folder


def test_sixteen_pictures_a_class_beat_zero_shot(adapted: Path) -> None:
    record = json.loads((adapted / "metrics.json").read_text())

    assert record["zero_shot"]["test/accuracy"] > 2 / 30
    assert record["metrics"]["test/accuracy"] > record["zero_shot"]["test/accuracy"] + MARGIN


def test_a_run_read_back_scores_the_same(adapted: Path) -> None:
    record = json.loads((adapted / "metrics.json").read_text())
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        again = evaluate_run(compose("evaluate", [f"run={adapted}", "evaluation=in_domain"]))

    assert again["metrics"] == record["metrics"]
    assert again["zero_shot"] == record["zero_shot"]


@torch.no_grad()
def test_the_exported_weights_are_a_plain_open_clip_model(adapted: Path) -> None:
    folder = find_run(str(adapted))
    parts = restore(saved_config(folder, {}), folder)
    parts.data.check()
    images = next(iter(parts.data.evaluation_loaders()["test"]))[0][:64]
    parts.classifier.eval()
    parts.adapters.merge()
    wanted = parts.classifier(images)
    parts.adapters.unmerge()

    parts.adapters.merge_and_unload()
    plain = open_clip.create_model("kravl-tiny", pretrained=str(WEIGHTS)).eval()
    plain.load_state_dict(parts.classifier.encoder().state_dict())
    prompts = [parts.source.templates[0].format(name) for name in parts.source.class_names]
    image = plain.encode_image(images, normalize=True)
    text = plain.encode_text(open_clip.get_tokenizer("kravl-tiny")(prompts), normalize=True)

    assert torch.allclose(plain.logit_scale.exp() * image @ text.T, wanted, atol=1e-4)
