"""A head goes through the protocol of every method, and the features that it is fitted on are computed once."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import CLIP

from kravl.backbones.clip import ClipClassifier
from kravl.backbones.heads.head import Problem, Support
from kravl.backbones.heads.prolip import ProLIP
from kravl.backbones.heads.taskres import TaskRes
from kravl.backbones.heads.tip_adapter import TipAdapter
from kravl.config.compose import typed
from kravl.run import train as train_module
from kravl.run.build import build_run, check_structure, skeleton
from kravl.run.evaluate import evaluate_run
from kravl.run.finished.restore import load_run
from kravl.run.heads.checks import check_head
from kravl.run.heads.features import refuse_too_many
from kravl.run.heads.fit import select
from kravl.run.prediction.scorer import Scorer
from kravl.run.train import train
from kravl.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
VAL = "data.val=../serif"  # other pictures of the same letters
TIP = "method=tip_adapter"


@pytest.fixture(scope="module", autouse=True)
def _tiny_clip():
    open_clip.add_model_config(ROOT / "tests/fixtures/tiny-clip.json")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of the image tower has had."""
    counts: list[int] = []
    tower = ClipClassifier.image_features

    def counted(classifier: ClipClassifier, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return tower(classifier, images)

    monkeypatch.setattr(ClipClassifier, "image_features", counted)
    return counts


def folder_of(tmp_path: Path, runs: str = "runs") -> Path:
    (folder,) = (tmp_path / runs).glob("*/seed*")
    return folder


@pytest.mark.parametrize("method", ["tip_adapter", "prolip"])
def test_cached_and_computed_features_give_the_same_record_bit_for_bit(tiny_run, tmp_path, encoded, method):
    records = []
    for runs, cache in (("none", "null"), ("cold", f"{tmp_path}/cache"), ("warm", f"{tmp_path}/cache")):
        passes = len(encoded)
        train(tiny_run(f"method={method}", f"runs={tmp_path}/{runs}", f"cache_root={cache}", backbone=CLIP))
        records.append((folder_of(tmp_path, runs) / "metrics.json").read_bytes())
        state = load_file(folder_of(tmp_path, runs) / "adapter.safetensors")
        records[-1] += b"".join(tensor.numpy().tobytes() for _, tensor in sorted(state.items()))
        assert (len(encoded) == passes) == (runs == "warm")

    assert records[0] == records[1] == records[2]


def test_a_fitted_head_is_recorded_and_evaluated_later_to_the_same_numbers(tiny_run, tmp_path, compose_evaluation):
    trained = train(tiny_run("method=taskres", "head.epochs=30", "alphas=[0,0.5,1]", backbone=CLIP))
    folder = folder_of(tmp_path)

    later = evaluate_run(compose_evaluation(f"run={folder}", "++trainer.enable_progress_bar=false", "alphas=[0,0.5,1]"))

    assert trained["head"] == "kravl.backbones.heads.taskres.TaskRes"
    assert trained["hyperparameters"] == {"alpha": 0.5, "lr": 2e-3, "epochs": 30, "batch_size": 256, "views": 10,
                                          "least_area": 0.08}  # fmt: skip
    assert trained["trainable_parameters"] == 4 * 32
    assert trained["adapter"] is None and trained["method"] == "taskres"
    for key in ("metrics", "zero_shot", "wise_ft"):
        assert later[key] == trained[key]
    assert trained["wise_ft"][0]["test/loss"] not in (
        trained["metrics"]["test/loss"],
        trained["zero_shot"]["test/loss"],
    )
    assert set(load_file(folder / "adapter.safetensors")) == {
        f"feature_head.{n}" for n in ("residual", "alpha", "fitted")
    }
    kept = {path.name for path in folder.iterdir()}
    assert {"details.json", "predictions.csv", "inputs.json", "cost.json"} <= kept
    assert json.loads((folder / "cost.json").read_text())["phases"].keys() >= {"features", "train", "evaluate"}


def test_zero_shot_beside_a_head_is_zero_shot(tiny_run, tmp_path):
    head = train(tiny_run(TIP, f"runs={tmp_path}/head", backbone=CLIP))
    before = train(tiny_run("method=prolip", "head.lr=1e-2", f"runs={tmp_path}/before", backbone=CLIP))
    plain = train(tiny_run("method=zeroshot", "optim.epochs=0", f"runs={tmp_path}/plain", backbone=CLIP))

    assert head["zero_shot"] == plain["zero_shot"]
    assert head["metrics"] != head["zero_shot"]
    assert head["trainable_parameters"] == 0
    assert before["zero_shot"] == plain["zero_shot"] != before["metrics"]
    assert before["trainable_parameters"] == 64 * 32  # the projection


def test_a_head_of_other_settings_or_a_damaged_one_is_refused(tiny_run, tmp_path, compose_evaluation):
    train(tiny_run("method=ncm", backbone=CLIP))
    folder = folder_of(tmp_path)
    again = compose_evaluation(f"run={folder}", "++trainer.enable_progress_bar=false")
    config, adapter = folder / "config.yaml", folder / "adapter.safetensors"
    written, whole = config.read_text(), adapter.read_bytes()

    with pytest.raises(InputError, match=r"alpha=0\.5: NearestClassMean does not start at zero-shot"):
        Scorer.of_run(load_run(folder), 0.5)  # as in the curve of an evaluation
    config.write_text(written.replace("views: 10", "views: 9"))
    with pytest.raises(InputError, match="does not fit this model: its facts differ"):
        evaluate_run(again)
    config.write_text(written)
    adapter.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="is damaged"):
        evaluate_run(again)


def test_tuning_looks_at_validation_images_and_says_what_it_chose(tiny_run, tmp_path, encoded, monkeypatch):
    changes = ["tune=few_shot_val", VAL, "split_protocol=coop", f"cache_root={tmp_path}/cache"]
    stop, evaluate = [True], train_module.evaluate

    def failing(*arguments: Any, **settings: Any) -> Any:
        if stop.pop():
            raise OSError(28, "No space left on device")
        return evaluate(*arguments, **settings)

    monkeypatch.setattr(train_module, "evaluate", failing)
    with pytest.raises(SystemExit, match="No space left"):
        train(tiny_run(TIP, *changes, backbone=CLIP))
    stop.append(False)
    fitted = sum(encoded)

    metrics = train(tiny_run(TIP, *changes, backbone=CLIP))  # what was fitted and selected is kept

    assert fitted == 10 * 24 + 4 * 4  # views of the training images, and four validation images of each letter
    assert metrics["config"]["tune"] == "few_shot_val"
    tensors = load_file(folder_of(tmp_path) / "adapter.safetensors")
    chosen = {name: metrics["hyperparameters"][name] for name in ("alpha", "beta")}
    assert chosen == {name: pytest.approx(tensors[f"feature_head.{name}"].item()) for name in chosen}


def test_selection_takes_the_best_of_the_grid_and_its_own_setting_among_equals():
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    labels = torch.arange(3).repeat(4)
    support = Support(centres[labels][:, None], labels, centres.roll(1, 0), 1)  # the text is wrong about every class
    head = TipAdapter(Problem(3, 8, 12, 10.0, support.text))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}

    chosen = select(head, support, centres[labels], labels)
    head_of_text = TaskRes(Problem(3, 8, 12, 10.0, centres))
    own = select(head_of_text, support._replace(text=centres), centres[labels], labels)

    assert chosen["alpha"] > 1.0  # the cache must outweigh the text
    assert own == {"alpha": 0.5}
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_a_head_without_text_runs_on_a_vit_and_one_with_text_is_refused(tiny_run, tmp_path):
    metrics = train(tiny_run("method=logistic_regression", f"runs={tmp_path}/vit"))

    assert metrics["zero_shot"] is None
    assert metrics["metrics"]["test/accuracy"] > 0.25
    with pytest.raises(InputError, match=r"the head TaskRes needs text features, which .* does not have; .*method=ncm"):
        train(tiny_run("method=taskres"))


WRONG = {
    "a curve": ([TIP, "alphas=3"], "alphas has 0.5, and TipAdapter does not start at zero-shot"),
    "sites": ([TIP, "sites=both"], r"the head TipAdapter is fitted on features .*: sites would change nothing"),
    "weights": ([TIP, "optim.class_weights=balanced"], r"optim.class_weights would change nothing"),
    "no validation": (
        [TIP, "tune=few_shot_val"],
        r"needs validation images, of which folder under .*official has none",
    ),
    "test images": (
        [TIP, "tune=few_shot_val", "data.val=../test", "split_protocol=coop"],
        r"is tested on its validation images, 16 of those that were drawn, and nothing may be selected on test",
    ),
    "too many": (
        [TIP, "tune=few_shot_val", "data.val=../train", "split_protocol=tip"],
        r"selects on at most 4 validation images a class, and split_protocol=tip with shots=6 has \d+; coop and",
    ),
    "nothing to tune": (["method=ncm", "tune=few_shot_val"], "NearestClassMean has nothing to select"),
    "no head to tune": (["tune=few_shot_val"], "selects the settings of a head on features; this method has none"),
    "a setting": ([TIP, "+head.gamma=1"], "unknown setting of TipAdapter 'gamma'"),
    "a class": ([TIP, "head._target_=kravl.backbones.heads.ncm.NearestMean"], "did you mean 'NearestClassMean'"),
    "no head": ([TIP, "head._target_=kravl.adapters.kra.KRAdapter"], "unknown Head in"),
    "another package": ([TIP, "head._target_=torch.nn.Linear"], "is outside"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_a_head_is_said_before_weights_are_loaded(tiny_run, monkeypatch, what):
    overrides, message = WRONG[what]
    monkeypatch.setattr("kravl.backbones.clip.load_clip", None)

    with pytest.raises(InputError, match=message) as caught:
        train(tiny_run(*overrides, backbone=CLIP))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [((0, 1, 3), r"needs an image of every class, and these have none to train on: C"), ((0, 1, 2, 3, -1), "label -1")],
)
def test_a_class_without_keys_and_labels_below_zero_are_named(tiny_run, labels, message):
    drawn = SimpleNamespace(train_samples=SimpleNamespace(labels=labels), source=SimpleNamespace(class_names="ABCD"))

    with pytest.raises(InputError, match=message):
        check_head(typed(tiny_run(TIP, backbone=CLIP)), drawn)


def test_a_tower_without_a_projection_of_its_own_is_told(tiny_run):
    classifier = build_run(typed(tiny_run("method=zeroshot", "optim.epochs=0", backbone=CLIP))).classifier
    classifier.model.visual.proj = None

    with pytest.raises(InputError, match=r"tiny-clip has no visual projection that is a matrix .*or method=rla"):
        classifier.attach_head(ProLIP, 24, ProLIP.before_projection)
    cfg = typed(tiny_run("method=prolip", backbone=("backbone=clip_rn50",)))
    with pytest.raises(InputError, match=r"RN50 has no visual projection that is a matrix of its own"):
        check_structure(cfg, skeleton(cfg, 2))  # without weights


def test_more_features_than_memory_holds_are_refused_with_figures():
    refuse_too_many(1600, 20, 512, None)
    refuse_too_many(1600, 20, 512, 140_000_000)

    with pytest.raises(InputError, match=r"1600 images x 20 views x 512 numbers take 0.13 GB, and 0.10 GB of memory"):
        refuse_too_many(1600, 20, 512, 100_000_000)


def test_a_seed_repeats_a_head_and_images_that_changed_have_other_features(tiny_run, tmp_path, glyphs, encoded):
    data = tmp_path / "data"
    shutil.copytree(glyphs, data)

    def run(runs: str) -> dict[str, Any]:
        where = (f"data_root={data}", f"runs={tmp_path}/{runs}", f"cache_root={tmp_path}/cache")
        return train(tiny_run("method=clip_adapter", "head.epochs=5", *where, backbone=CLIP))

    first, again = run("a"), run("b")
    passes = len(encoded)
    shutil.copy(data / "glyphs/train/B/0.png", data / "glyphs/train/A/0.png")
    other = run("c")

    assert first["metrics"] == again["metrics"] != other["metrics"]
    assert len(encoded) > passes
