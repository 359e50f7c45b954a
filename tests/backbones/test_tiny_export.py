"""What the pretraining leaves becomes the weights that open_clip loads."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors import safe_open

from kravl.backbones import tiny


@pytest.fixture(scope="module")
def exporter() -> Any:
    path = Path(__file__).parents[2] / "experiments/pretrain_tiny/export.py"
    spec = importlib.util.spec_from_file_location("export", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder as train.py leaves it, with random weights."""
    torch.manual_seed(0)
    torch.save(CLIP(**json.loads(tiny.CONFIG.read_text())).state_dict(), tmp_path / "model.pt")
    (tmp_path / "log.csv").write_text("step,pictures,loss\n0,384,5.5\n50,19584,5.1\n")
    return tmp_path


def test_exported_weights_load_and_are_the_trained_ones_rounded_to_halves(exporter, trained):
    exporter.export(trained, trained / "weights.safetensors")

    tiny.register()
    loaded = open_clip.create_model("kravl-tiny", pretrained=str(trained / "weights.safetensors")).state_dict()
    original = torch.load(trained / "model.pt", weights_only=True)
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in original.items())


def test_exported_weights_say_how_they_were_trained(exporter, trained):
    exporter.export(trained, trained / "weights.safetensors")

    with safe_open(trained / "weights.safetensors", framework="pt") as file:
        metadata = file.metadata()
    training = json.loads(metadata["training"])
    assert metadata["quick_gelu"] == "false"
    assert (training["step"], training["pictures"], training["loss"]) == ("50", "19584", "5.1")
    assert len(training["model_sha256"]) == 64


def test_the_same_model_gives_the_same_bytes(exporter, trained):
    # six times: safetensors orders two entries of metadata by chance
    for i in range(6):
        exporter.export(trained, trained / f"{i}.safetensors")
    assert len({(trained / f"{i}.safetensors").read_bytes() for i in range(6)}) == 1


def test_a_weight_that_half_precision_cannot_hold_is_refused(exporter, trained):
    state = torch.load(trained / "model.pt", weights_only=True)
    state["visual.proj"][0, 0] = 1e6
    torch.save(state, trained / "model.pt")
    with pytest.raises(SystemExit, match=r"not finite in half precision: visual\.proj"):
        exporter.export(trained, trained / "weights.safetensors")


def test_an_unfinished_training_is_refused(exporter, trained):
    (trained / "log.csv").write_text("")
    with pytest.raises(SystemExit, match="has not ended"):
        exporter.export(trained, trained / "weights.safetensors")
