"""Reusing the features of a frozen image tower gives the results of encoding the images each time."""

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_classifier import TinyClassifier, loader, quiet_trainer
from tiny_run import CLIP, VIT

from kravl.backbones.classifier import Classifier
from kravl.backbones.clip import ClipClassifier
from kravl.evaluation.wise_ft import wise_ft
from kravl.run.train import train

PROBE = ("sites=null", "linear_head=true", "loading.augmentation=none", "alphas=3")


@pytest.fixture(scope="module", autouse=True)
def _tiny_clip() -> None:
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")


def count(monkeypatch: pytest.MonkeyPatch, cls: type, name: str) -> list[int]:
    """The size of the batch of every call of a method from now on."""
    method, sizes = getattr(cls, name), []
    monkeypatch.setattr(cls, name, lambda self, images: sizes.append(len(images)) or method(self, images))
    return sizes


@pytest.mark.parametrize("backbone", [VIT, CLIP], ids=["vit", "clip"])
def test_a_head_trains_on_stored_features_as_it_does_on_images(backbone, tiny_run, tmp_path, monkeypatch):
    stored = train(tiny_run(*PROBE, f"runs={tmp_path}/stored", backbone=backbone))
    monkeypatch.setattr(Classifier, "features_are_fixed", lambda self: False)
    plain = train(tiny_run(*PROBE, f"runs={tmp_path}/plain", backbone=backbone))

    heads = [load_file(next((tmp_path / runs).glob("*/*/adapter.safetensors"))) for runs in ("stored", "plain")]
    for name, tensor in heads[0].items():
        torch.testing.assert_close(tensor, heads[1][name], rtol=1e-4, atol=1e-5)
    for part in ("metrics", "zero_shot"):
        on_test = [{k: v for k, v in (run[part] or {}).items() if k.startswith("test/")} for run in (stored, plain)]
        assert on_test[0] == pytest.approx(on_test[1], rel=1e-4)


def test_each_image_goes_through_the_tower_once(tiny_run, monkeypatch):
    sizes = count(monkeypatch, ClipClassifier, "image_features")

    metrics = train(tiny_run(*PROBE, backbone=CLIP))

    assert sum(sizes) == 4 * 6 + metrics["metrics"]["test/count"]  # of 2 epochs of 24 draws, and 3 alphas


def test_features_are_not_reused_where_the_tower_is_adapted_or_crops_are_random(tiny_run, monkeypatch):
    sizes = count(monkeypatch, ClipClassifier, "image_features")
    for changes in (("sites=vision", "loading.augmentation=none"), ("sites=null", "linear_head=true")):
        sizes.clear()

        metrics = train(tiny_run(*changes, "overwrite=true", "name=again", backbone=CLIP))

        evaluated = metrics["metrics"]["test/count"]
        assert sum(sizes) == 2 * 24 + evaluated * (2 if "sites=vision" in changes else 1)


def test_an_untrained_model_is_evaluated_once(tiny_run, monkeypatch):
    sizes = count(monkeypatch, ClipClassifier, "image_features")

    metrics = train(tiny_run("optim.epochs=0", backbone=CLIP))

    assert metrics["metrics"] == metrics["zero_shot"]
    assert sum(sizes) == metrics["metrics"]["test/count"]


class _Weights:
    """Adapters of a classifier's head."""

    def __init__(self, classifier: TinyClassifier) -> None:
        self.classifier, self.weight = classifier, classifier.weight.detach().clone()

    def merge(self, alpha: float = 1.0) -> None:
        self.classifier.weight.data = self.weight * (1 + alpha * torch.arange(12))

    def unmerge(self) -> None:
        self.classifier.weight.data = self.weight


def test_the_points_of_a_curve_have_the_bits_of_one_pass_each():
    torch.manual_seed(0)
    classifier = TinyClassifier(num_classes=4)
    sets = {"test": loader([0, 1, 2, 3] * 5), "other": loader([3, 1], seed=1)}
    classes = {"test": None, "other": (0, 1, 2, 3)}

    def curve(fixed: bool):
        classifier.fixed = fixed
        return wise_ft(quiet_trainer(), classifier, _Weights(classifier), sets, classes, (0.0, 0.5, 1.0))

    reused, plain = curve(fixed=True), curve(fixed=False)

    for alpha, points in plain.items():
        for name, rows in points.items():
            assert all(torch.equal(a, b) for a, b in zip(rows, reused[alpha][name], strict=True))
    assert not torch.equal(reused[0.0]["test"].loss, reused[1.0]["test"].loss)


@pytest.mark.parametrize(
    "changes, fixed",
    [
        ([], True),
        (["head.*"], True),
        (["blocks.11.*"], False),
        (["pos_embed"], False),
    ],
)
def test_features_are_fixed_where_nothing_before_the_head_trains(changes, fixed):
    from kravl.adapters.injection.inject import inject
    from kravl.backbones.vit import VitClassifier

    model = VitClassifier(("a", "b"), (), name="vit_tiny_patch16_224", pretrained=False, image_size=32)
    inject(model.encoder(), None, [], unfreeze=changes)

    assert model.features_are_fixed() == fixed
    model.encoder().head_drop = torch.nn.Dropout(0.1)  # draws anew in every step
    assert not model.features_are_fixed()
