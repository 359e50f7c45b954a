"""A run that learns a context: saved, read back, resumed, on classes that were not trained; what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import CLIP

from kravl.config.compose import as_written, typed
from kravl.run.build import build_run
from kravl.run.evaluate import evaluate_run
from kravl.run.finished.restore import load_run
from kravl.run.prediction.scorer import Scorer
from kravl.run.train import check, train
from kravl.runtime.errors import InputError
from kravl.tracking.settings import settings_sha256

COOP = ("method=coop", "context_tokens=4", "optim.epochs=2", "optim.lr=0.1", "optim.weight_decay=0")
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tiny_clip() -> None:
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")


@pytest.fixture
def coop(tiny_run: Run) -> Run:
    return lambda *overrides: tiny_run(*COOP, *overrides, backbone=CLIP)


def finished(runs: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = runs.glob("*/seed*/metrics.json")
    return path.parent, json.loads(path.read_text())


def test_the_context_is_what_is_counted_saved_and_evaluated_again(
    coop: Run, tmp_path: Path, compose_evaluation
) -> None:
    record = train(coop())
    folder, written = finished(tmp_path / "runs")

    saved = load_file(folder / "adapter.safetensors")
    assert list(saved) == ["context"]
    assert record["trainable_parameters"] == saved["context"].numel()
    assert written["metrics"] != written["zero_shot"]
    again = evaluate_run(compose_evaluation(f"run={folder}", "evaluation=in_domain"))
    assert (again["metrics"], again["zero_shot"]) == (written["metrics"], written["zero_shot"])
    with pytest.raises(InputError, match="alphas=11: a learned context"):
        evaluate_run(compose_evaluation(f"run={folder}", "evaluation=in_domain", "alphas=11"))


def test_zero_shot_is_that_of_a_run_without_a_context(coop: Run, tiny_run: Run, tmp_path: Path) -> None:
    learned = train(coop())
    plain = train(tiny_run("method=zeroshot", "optim.epochs=0", f"runs={tmp_path}/plain", backbone=CLIP))

    assert learned["zero_shot"] == plain["metrics"]


def test_an_interrupted_run_ends_with_the_same_context(coop: Run, tmp_path: Path, stop: Callable[..., None]) -> None:
    train(coop(f"runs={tmp_path}/whole"))
    stop(coop())
    train(coop())

    whole, _ = finished(tmp_path / "whole")
    resumed, _ = finished(tmp_path / "runs")
    assert (resumed / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def test_classes_that_were_not_trained_are_scored_with_the_learned_context(
    coop: Run, tmp_path: Path, compose_evaluation
) -> None:
    record = train(coop("data.classes=base", "evaluation=base_to_new"))
    folder, _ = finished(tmp_path / "runs")

    assert record["metrics"]["new/accuracy"] is not None
    assert record["metrics"]["new/loss"] != record["zero_shot"]["new/loss"]
    again = evaluate_run(compose_evaluation(f"run={folder}", "evaluation=base_to_new"))
    assert again["metrics"] == record["metrics"]


def test_each_class_may_learn_its_own(coop: Run, tmp_path: Path) -> None:
    train(coop("context_per_class=true"))
    folder, _ = finished(tmp_path / "runs")

    assert load_file(folder / "adapter.safetensors")["context"].dim() == 3
    with pytest.raises(InputError, match=r"a learned context .* takes the place of words"):
        Scorer.of_run(load_run(folder), 0.5)


def test_words_are_where_it_starts(coop: Run) -> None:
    run = build_run(typed(coop("context_init=a photo of a")))
    model = run.classifier.encoder()

    words = run.classifier._tokenizer(["a photo of a"])[0, 1:5]  # type: ignore[operator, index]
    assert torch.equal(model.context.detach(), model.token_embedding(words).detach())  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["context_tokens=0", "context_init=a photo"],
            "context_init='a photo' is of a learned context.*add context_tokens=16",
        ),
        (["context_tokens=0", "context_per_class=true"], "context_per_class=true is of a learned context"),
        (["linear_head=true"], "linear_head=true trains class weights, and context_tokens=4 the prompts"),
        (["alphas=3"], "alphas=3: a learned context.*no model between them; alphas=2 evaluates both ends"),
        (["alphas=[0,0.5,1]"], r"alphas=\[0, 0.5, 1\]: a learned context"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_once(coop: Run, overrides: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        check(typed(coop(*overrides)))


def test_what_cannot_learn_a_context_is_refused_before_weights(coop: Run, tiny_run: Run) -> None:
    with pytest.raises(InputError, match="VitClassifier has no text tower: context_tokens=16"):
        build_run(typed(tiny_run("method=coop")))
    with pytest.raises(
        InputError, match="context_per_class=true has no context for the 2 classes of evaluation=base_to_new"
    ):
        build_run(typed(coop("context_per_class=true", "data.classes=base", "evaluation=base_to_new")))
    with pytest.raises(InputError, match="context_tokens=90 does not fit: the class 'A'"):
        build_run(typed(coop("context_tokens=90")))


def test_a_run_without_a_context_keeps_its_hash(tiny_run: Run) -> None:
    settings = as_written(tiny_run())
    former = {key: value for key, value in settings.items() if not key.startswith("context_")}

    assert settings_sha256(settings) == settings_sha256(former)
    assert settings_sha256({**settings, "context_tokens": 4}) != settings_sha256(settings)
