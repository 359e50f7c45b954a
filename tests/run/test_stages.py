"""A run in stages: what trains in each, where its head begins, the same when it is interrupted, and what it refuses."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tiny_run import CLIP
from torch.nn import functional as F

from kravl.config.compose import as_written, typed
from kravl.config.schema import CONFIGS
from kravl.run.build import build_run
from kravl.run.evaluate import evaluate_run
from kravl.run.finished.restore import load_run
from kravl.run.prediction.other_classes import check_other_classes, other_prompts, score_other_classes
from kravl.run.prediction.scorer import Scorer
from kravl.run.stages.plan import check_warmup
from kravl.run.train import check, train
from kravl.runtime.errors import InputError
from kravl.tracking.settings import settings_sha256
from kravl.training.learner import Learner

# four steps of norms, three of class weights
TWO = ("method=2sfs", "optim.steps=7", "optim.lr=1e-2", "data.templates=single", "loading.batch_size=8")
NORMS = "method=layernorm"
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tiny_clip() -> None:
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")


@pytest.fixture
def staged(tiny_run: Run) -> Run:
    return lambda *overrides: tiny_run(*TWO, *overrides, backbone=CLIP)


def finished(runs: Path) -> Path:
    (path,) = runs.glob("*/seed*")
    return path


def stop_at(cfg: Any, number: int) -> None:
    """Start a run that is asked to stop in its step of this number, from 1."""
    step, calls = Learner.training_step, [0]

    def counted(learner: Learner, batch: Any, batch_idx: int) -> Any:
        calls[0] += 1
        if calls[0] == number:
            signal.raise_signal(signal.SIGTERM)
        return step(learner, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="75"):
        patch.setattr(Learner, "training_step", counted)
        train(cfg)


CROPPED, PLAIN = "loading.augmentation=crop_flip", "loading.augmentation=none"


# within the first stage, at its end, in the first step of the second, later; two batches a step
@pytest.mark.parametrize(
    ("stop", "given"),
    [
        (2, (CROPPED,)),
        (4, (PLAIN,)),
        (5, (CROPPED,)),
        (6, (PLAIN,)),
        (8, (PLAIN, "++trainer.accumulate_grad_batches=2")),
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    staged: Run, tmp_path: Path, stop: int, given: tuple[str, ...]
) -> None:
    train(staged(f"runs={tmp_path}/whole", *given))
    stop_at(staged(*given), stop)
    train(staged(*given))

    whole, resumed = finished(tmp_path / "whole"), finished(tmp_path / "runs")
    for file in ("adapter.safetensors", "metrics.json", "curve.json", "predictions.csv"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file
    assert json.loads((whole / "curve.json").read_text())["step"] == [1, 2, 3, 4, 5, 6, 7]


class Killed(BaseException):
    """As far as the run's folder can tell."""


def test_a_run_that_was_killed_goes_on_from_the_beginning_of_its_stage(staged: Run, tmp_path: Path) -> None:
    train(staged(f"runs={tmp_path}/whole", "checkpoint_every=0"))
    step, calls = Learner.training_step, [0]

    def killed(learner: Learner, batch: Any, batch_idx: int) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise Killed
        return step(learner, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Learner, "training_step", killed)
        train(staged("checkpoint_every=0"))
    left = finished(tmp_path / "runs")
    assert sorted(path.name for path in (left / "checkpoints").iterdir()) == ["step=0.ckpt", "step=4.ckpt"]
    train(staged("checkpoint_every=0"))

    whole = finished(tmp_path / "whole")
    assert (left / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def test_the_first_stage_is_a_run_of_its_own_that_the_second_leaves_as_it_is(
    staged: Run, tiny_run: Run, tmp_path: Path
) -> None:
    record = train(staged())
    alone = (NORMS, "optim.steps=4", "optim.lr=1e-2", "optim.weight_decay=0.01", "optim.min_lr_ratio=5e-3")
    given = ("trainer.gradient_clip_val=null", "loading.min_batches=1", f"runs={tmp_path}/alone")
    train(tiny_run(*alone, *given, backbone=CLIP))

    both, first = (load_file(finished(tmp_path / runs) / "adapter.safetensors") for runs in ("runs", "alone"))
    assert both.keys() == {*first, "class_weight"}
    assert all(torch.equal(both[name], tensor) for name, tensor in first.items())
    sizes = [sum(t.numel() for t in first.values()), both["class_weight"].numel()]
    assert [stage["trainable_parameters"] for stage in record["stages"]] == sizes
    assert [stage["steps"] for stage in record["stages"]] == [4, 3]


def test_the_second_stage_begins_at_zero_shot_under_the_trained_norms(staged: Run, tmp_path: Path) -> None:
    given = ("alphas=1", "evaluation=base_to_new", "data.classes=base")
    start = train(staged("stages=[{train:[unfreeze],share:0.6},{train:[head],lr:0}]", "optim.weight_decay=0", *given))
    trained = train(staged(f"runs={tmp_path}/trained", *given))
    folder = finished(tmp_path / "runs")

    run = load_run(folder)
    with torch.no_grad():
        text = run.classifier.encode_text()  # type: ignore[operator]
    # computed among all classes there, and summed in another order
    torch.testing.assert_close(load_file(folder / "adapter.safetensors")["class_weight"], text, rtol=0, atol=1e-5)
    assert trained["metrics"]["test/loss"] != start["metrics"]["test/loss"]
    new = {key for key in start["metrics"] if key.startswith("new/")}
    assert new  # classes without weights: by the text tower of the first stage, whatever the second has done
    assert {key: trained["metrics"][key] for key in new} == {key: start["metrics"][key] for key in new}
    letters = {"test": (["A", "B"], []), "new": ([], ["C", "D"])}
    assert {s: (by["class_weights"], by["text_tower"]) for s, by in trained["scored_by"].items()} == letters


def test_the_first_step_of_the_head_is_that_of_the_paper(staged: Run, tmp_path: Path) -> None:
    """AdamW's first step on the cross-entropy of 100 times the cosine of images and weights, by hand, in double."""
    lr, decay = 1e-2, 0.1
    whole = ("loading.batch_size=24", "loading.augmentation=none", f"optim.weight_decay={decay}")
    train(staged("stages=[{train:[unfreeze],steps:2},{train:[head],steps:1}]", "optim.steps=3", *whole))
    folder = finished(tmp_path / "runs")

    run = load_run(folder)
    data = build_run(typed(staged(*whole))).data
    images = next(iter(data.repeated_images()))  # type: ignore[arg-type]
    with torch.no_grad():
        x = run.classifier.double().image_features(images[0].double())
        text = run.classifier.encode_text()  # type: ignore[operator]
    labels = F.one_hot(images[1], len(run.class_names)).double()
    unit = text / text.norm(dim=1, keepdim=True)
    wrong = ((100 * x @ unit.T).softmax(dim=1) - labels) / len(x)
    along = 100 * wrong.T @ x
    gradient = (along - (along * unit).sum(dim=1, keepdim=True) * unit) / text.norm(dim=1, keepdim=True)
    expected = text * (1 - lr * decay) - lr * gradient / (gradient.abs() + 1e-8)

    weights = load_file(folder / "adapter.safetensors")["class_weight"].double()
    known = gradient.abs() > 1e-4 * gradient.abs().max()  # the sign of a smaller one is rounding
    assert known.double().mean() > 0.99
    torch.testing.assert_close(weights[known], expected[known], rtol=0, atol=1e-5)


HEAD_LAST = "stages=[{train:[adapters],share:0.6},{train:[head],share:0.4}]"


@pytest.mark.parametrize("method", ["kra", "cliplora"])  # the latter drops entries while it trains
def test_any_adapter_comes_before_a_head(tiny_run: Run, tmp_path: Path, method: str) -> None:
    given = (f"method={method}", "linear_head=true", "optim.steps=5", "optim.lr=1e-2", "loading.augmentation=none")
    train(tiny_run(*given, HEAD_LAST, f"runs={tmp_path}/whole", backbone=CLIP))
    stop_at(tiny_run(*given, HEAD_LAST, backbone=CLIP), 4)
    record = train(tiny_run(*given, HEAD_LAST, backbone=CLIP))
    train(tiny_run(f"method={method}", "optim.steps=3", *given[3:], f"runs={tmp_path}/alone", backbone=CLIP))

    whole, resumed, alone = (finished(tmp_path / runs) / "adapter.safetensors" for runs in ("whole", "runs", "alone"))
    assert resumed.read_bytes() == whole.read_bytes()
    both = load_file(whole)
    assert all(torch.equal(both[name], tensor) for name, tensor in load_file(alone).items())
    assert record["effective_rank"]["mean"] > 1
    assert [stage["steps"] for stage in record["stages"]] == [3, 2]


def test_a_linear_probe_comes_before_the_rest(tiny_run: Run, tmp_path: Path) -> None:
    """LP-FT: also of a backbone whose only classifier is its head."""
    stages = "stages=[{train:[head],lr:1e-2,steps:3},{train:[adapters,head]}]"
    record = train(tiny_run(stages, "optim.steps=6", "optim.lr=1e-3", "loading.augmentation=none"))

    head, every = (stage["trainable_parameters"] for stage in record["stages"])
    saved = load_file(finished(tmp_path / "runs") / "adapter.safetensors")
    assert head == sum(t.numel() for name, t in saved.items() if name.startswith("head."))
    assert every == record["trainable_parameters"] == sum(t.numel() for t in saved.values())


def test_a_context_comes_before_a_head_that_starts_from_it(tiny_run: Run, tmp_path: Path) -> None:
    given = ("method=coop", "context_tokens=2", "linear_head=true", "optim.lr=0.1", "optim.weight_decay=0")
    stages = "stages=[{train:[context],share:0.5},{train:[head],lr:0}]"
    train(tiny_run(*given, stages, "optim.steps=4", "alphas=1", backbone=CLIP))
    folder = finished(tmp_path / "runs")

    run = load_run(folder)
    learned = run.classifier.prepared_text()
    assert learned is not None
    torch.testing.assert_close(load_file(folder / "adapter.safetensors")["class_weight"], learned, rtol=0, atol=1e-5)


def test_one_tower_may_train_after_the_other(tiny_run: Run, tmp_path: Path) -> None:
    given = (
        "method=lora",
        "optim.steps=4",
        "optim.lr=1e-2",
        "stages=[{train:['visual.*'],steps:2},{train:[transformer*]}]",
    )
    train(tiny_run(*given, f"runs={tmp_path}/whole", backbone=CLIP))
    stop_at(tiny_run(*given, backbone=CLIP), 3)
    train(tiny_run(*given, backbone=CLIP))

    whole, resumed = (finished(tmp_path / runs) / "adapter.safetensors" for runs in ("whole", "runs"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_later_commands_read_a_run_in_stages(staged: Run, tmp_path: Path, compose_evaluation: Run) -> None:
    record = train(staged("alphas=[0,0.5,1]"))
    folder = finished(tmp_path / "runs")

    quiet = "++trainer.enable_progress_bar=false"
    again = evaluate_run(compose_evaluation(f"run={folder}", "evaluation=in_domain", "alphas=[0,0.5,1]", quiet))
    assert {key: again[key] for key in ("metrics", "zero_shot", "wise_ft", "scored_by")} == {
        key: record[key] for key in ("metrics", "zero_shot", "wise_ft", "scored_by")
    }
    assert record["metrics"]["test/loss"] != record["zero_shot"]["test/loss"]
    plain = train(staged("method=zeroshot", "optim.epochs=0", f"runs={tmp_path}/plain"))
    assert record["zero_shot"]["test/loss"] == pytest.approx(plain["metrics"]["test/loss"], abs=1e-5)
    images = build_run(typed(staged())).data.evaluation_loaders()["test"]
    scores = Scorer.of_run(load_run(folder))(next(iter(images))[0])
    assert scores.argmax(dim=1).tolist() == [int(line.split(",")[2]) for line in rows_of(folder)]


def rows_of(folder: Path) -> list[str]:
    return (folder / "predictions.csv").read_text().splitlines()[1:]


def test_a_class_that_is_trained_is_scored_by_its_weights_in_other_sets_too(staged: Run, glyphs: Path) -> None:
    node = "{_target_: kravl.data.sources.folder.ImageFolder, name: serif, root: '${data_root}/glyphs/serif', test: .}"
    among = "++evaluation.sets.serif=" + node
    as_trained, own = (train(staged(among, f"++evaluation.classes={kind}")) for kind in ("trained", "own"))

    assert own["scored_by"]["serif"] == {"class_weights": ["A", "B", "C", "D"], "text_tower": []}
    assert own["metrics"] == as_trained["metrics"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["optim.steps=null", "optim.steps_per_shot=null", "optim.epochs=3"],
            "stages take shares of a number of steps",
        ),
        (["stages=[{train:[unfreeze],share:0.6},{train:[head],share:0.2}]"], "have 4, 1 steps and the run has 7"),
        (["stages=[{train:[unfreeze],steps:99},{train:[head]}]"], "the others take 99 of the run's 7 steps: none is"),
        (
            ["stages=[{train:[unfreeze],steps:7},{train:[head]}]"],
            "stages.1 has neither a share nor steps, and the others",
        ),
        (["stages=[{train:[unfreeze]},{train:[head]}]"], "stages 0 and 1 have neither a share nor steps"),
        (["stages=[{train:[unfreeze],share:0.5,steps:3},{train:[head]}]"], "stages.0 has a share and steps"),
        (["stages=[{train:[adapters],share:0.5},{train:[head]}]"], "stages.0 trains adapters, which this run has none"),
        (["linear_head=false"], "stages.1 trains head, which this run has none of; add linear_head=true"),
        (["stages=[{train:[unfreeze]}]"], "no stage trains head"),
        (["stages=[{train:[],share:0.5},{train:[head,unfreeze]}]"], "stages.0 trains nothing"),
        (
            ["context_tokens=2", "stages=[{train:[unfreeze],share:0.5},{train:[context,head]}]"],
            "stages.0 does not train the c",
        ),
        (["train_statistics=true"], "stages with train_statistics=true"),
        (["++trainer.strategy=fsdp"], "stages with trainer.strategy=fsdp"),
    ],
)
def test_stages_that_do_not_go_with_the_run_are_refused_at_once(staged: Run, overrides: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        check(typed(staged(*overrides)))


@pytest.mark.parametrize(
    ("overrides", "images", "line"),
    [
        (
            ["optim.warmup_steps=8", "stages=[]"],
            None,
            "optim.warmup_steps=8: the run has 7 steps; it must be at most 7",
        ),
        (["optim.warmup_steps=4"], None, "optim.warmup_steps=4: stages.1 has 3 steps; it must be at most that"),
        (
            ["stages=[{train:[unfreeze],steps:4,warmup_steps:5},{train:[head]}]"],
            None,
            "stages.0.warmup_steps=5: stages.0 has 4 steps; it must be at most that",
        ),
        (
            ["stages=[]", "optim.steps=null", "optim.steps_per_shot=null", "optim.epochs=2", "optim.warmup_steps=9"],
            25,
            "optim.warmup_steps=9: the run has 8 steps in 2 epochs; it must be at most 8",
        ),
    ],
)
def test_a_warm_up_is_no_longer_than_what_it_is_of(
    staged: Run, overrides: list[str], images: int | None, line: str
) -> None:
    cfg = typed(staged(*overrides))
    with pytest.raises(InputError, match=line):
        check_warmup(cfg, images)

    cfg.optim.warmup_steps = min(cfg.optim.warmup_steps, 3)
    if cfg.stages:
        cfg.stages[0].warmup_steps = 4
    check_warmup(cfg, images)


def test_what_a_pattern_does_not_name_is_refused_before_weights(staged: Run, tiny_run: Run) -> None:
    with pytest.raises(InputError, match=r"stages.0 trains 'unfreze', which is nothing .*nearest are unfreeze,"):
        build_run(typed(staged("stages=[{train:[unfreze],share:0.5},{train:[head]}]")))
    with pytest.raises(InputError, match=r"no stage trains transformer\.resblocks\.0\.ln_1\.weight"):
        build_run(typed(staged("stages=[{train:['visual.*'],share:0.5},{train:[head]}]")))
    with pytest.raises(InputError, match="vit_tiny_random scores by one that starts at zero"):
        check(typed(tiny_run(HEAD_LAST, "optim.steps=5")))
    with pytest.raises(InputError, match="method=taskres is a head on features"):
        check(typed(tiny_run("method=taskres", "stages=[{train:[head]}]", backbone=CLIP)))


def test_the_stages_and_their_order_are_part_of_what_decides_a_run(tiny_run: Run) -> None:
    settings = as_written(tiny_run())
    former = {key: value for key, value in settings.items() if key != "stages"}
    one, other = ({"train": ["head"]}, {"train": ["adapters"]})

    assert settings_sha256(settings) == settings_sha256(former)
    hashes = {settings_sha256({**settings, "stages": stages}) for stages in ([], [one, other], [other, one])}
    assert len(hashes) == 3


def test_other_classes_are_scored_by_the_text_tower_and_those_that_were_trained_by_their_weights(
    staged: Run, tmp_path: Path
) -> None:
    train(staged("data.classes=base", "alphas=1"))
    run = load_run(finished(tmp_path / "runs"))
    check_other_classes(run.cfg)
    size = run.classifier.preprocess.image_size
    own = Scorer.of_run(run)(pictures := torch.rand(2, 3, size, size))  # type: ignore[arg-type]
    run.adapters.unmerge()

    columns = score_other_classes(run, ["D", "A"], other_prompts(run.record.prompts, None))
    scores = Scorer.of_run(run, columns=columns)(pictures)
    with torch.no_grad():
        features = run.classifier.image_features(pictures)
    text = run.classifier._further[0].features()  # type: ignore[operator, index, union-attr]
    torch.testing.assert_close(scores[:, 0], 100 * features @ text[0])
    torch.testing.assert_close(scores[:, 1], own[:, 0])  # a product of another shape
    assert score_other_classes(run, ["A"], ["a drawing of a {}."]) == [2]


def test_a_run_starts_from_the_norms_of_another_and_its_head_from_what_they_become(staged: Run, tmp_path: Path) -> None:
    train(staged(f"runs={tmp_path}/first"))
    first = finished(tmp_path / "first")
    still = "stages=[{train:[unfreeze],share:0.6,lr:0},{train:[head],lr:0}]"
    train(staged(f"init={first}", still, "optim.weight_decay=0"))

    source, result = (load_file(folder / "adapter.safetensors") for folder in (first, finished(tmp_path / "runs")))
    weights = result.pop("class_weight")
    assert all(torch.equal(tensor, source[name]) for name, tensor in result.items())
    with torch.no_grad():
        text = load_run(first).classifier.encode_text()  # type: ignore[operator]
    torch.testing.assert_close(weights, text, rtol=0, atol=1e-5)


@pytest.mark.long
def test_half_of_openmojis_classes_are_scored_by_trained_weights_the_others_as_by_the_norms_alone(
    tmp_path: Path,
) -> None:
    """Base-to-new of kravl-tiny: the new classes are those of a run of the first stage alone, bit for bit."""
    given = ["backbone=kravl_tiny", "data=openmoji", "data.classes=base", "evaluation=base_to_new", "shots=2"]
    given += ["loading.augmentation=none", "tracking=none", "optim.lr=1e-2", "data.templates=single", "alphas=1"]
    given += ["++trainer.enable_progress_bar=false", "++trainer.enable_model_summary=false", "loading.min_batches=1"]
    given += ["trainer.gradient_clip_val=null", "optim.weight_decay=0.01", "optim.min_lr_ratio=5e-3"]
    records = []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for method, steps in (("2sfs", 10), ("layernorm", 6)):
            settings = [*given, f"method={method}", f"optim.steps={steps}", f"runs={tmp_path}/{method}"]
            records.append(train(compose("train", settings)))

    both, norms = (record["metrics"] for record in records)
    new = [key for key in both if key.startswith("new/")]
    assert [both[key] for key in new] == [norms[key] for key in new]
    assert both["test/loss"] != norms["test/loss"]
    scored = records[0]["scored_by"]
    assert (len(scored["test"]["class_weights"]), scored["test"]["text_tower"]) == (15, [])
    assert (scored["new"]["class_weights"], len(scored["new"]["text_tower"])) == ([], 15)
