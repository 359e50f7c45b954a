"""The main job on real pictures of letters: repeatable, resumable, skippable, and clear about what is wrong."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from full_disk import full_disk
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tiny_run import CLIP, VIT

from kravl.config.schema import CONFIGS
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train
from kravl.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
FOLDER = "_target_: kravl.data.sources.folder.ImageFolder, name: serif, root: '${data_root}/glyphs/serif', test: ."
SERIF = f"++evaluation.sets.serif={{{FOLDER}}}"


@pytest.fixture(scope="module", autouse=True)
def _tiny_clip():
    open_clip.add_model_config(ROOT / "tests/fixtures/tiny-clip.json")


def run_folder(tmp_path: Path, runs: str = "runs") -> Path:
    (folder,) = (tmp_path / runs).glob("*/seed*")
    return folder


def record(cfg) -> bytes:
    train(cfg)
    (file,) = Path(cfg.runs).glob("*/seed*/metrics.json")
    return file.read_bytes()


@pytest.mark.parametrize("backbone", ["vit", "clip"])
def test_a_seed_repeats_bit_for_bit_and_another_seed_does_not(tiny_run, tmp_path, backbone):
    model = {"vit": VIT, "clip": CLIP}[backbone]
    first, again, other = (
        record(tiny_run(SERIF, f"runs={tmp_path}/{name}", f"seed={seed}", "split_seed=1", backbone=model))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )

    assert first == again
    metrics, others = json.loads(first), json.loads(other)
    assert metrics["metrics"]["test/loss"] != others["metrics"]["test/loss"]
    assert metrics["split_sha256"] == others["split_sha256"]
    assert metrics["metrics"].keys() >= {"test/accuracy", "serif/ece", "ood_mean", "harmonic_mean"}
    assert (metrics["zero_shot"] is not None) == (backbone == "clip")
    assert metrics["effective_rank"]["mean"] > 1
    assert str(tmp_path) not in first.decode()


def test_a_run_leaves_its_record_and_its_adapter_and_nothing_else(tiny_run, tmp_path):
    metrics = train(tiny_run())
    folder = run_folder(tmp_path)

    left = sorted(p.name for p in folder.iterdir())
    kept = ["curve.json", "details.json", "inputs.json", "model.json", "predictions.csv", "spectra.safetensors"]
    assert left == sorted([".lock", "adapter.safetensors", "config.yaml", "cost.json", "metrics.json", *kept])
    assert metrics["adapter_bytes"] == (folder / "adapter.safetensors").stat().st_size
    stored = sum(t.numel() for t in load_file(folder / "adapter.safetensors").values())
    assert stored == metrics["trainable_parameters"]
    assert json.loads((folder / "cost.json").read_text())["train_seconds"] > 0
    assert metrics["precision"] == "32-true"


def test_a_finished_run_is_skipped_and_overwrite_does_it_again(tiny_run, tmp_path, caplog):
    caplog.set_level("INFO")
    first = train(tiny_run())
    written = (run_folder(tmp_path) / "metrics.json").stat().st_mtime_ns

    assert train(tiny_run()) == first
    assert "is finished; skipped (overwrite=true" in caplog.text
    assert (run_folder(tmp_path) / "metrics.json").stat().st_mtime_ns == written

    assert train(tiny_run("overwrite=true")) == first
    assert (run_folder(tmp_path) / "metrics.json").stat().st_mtime_ns > written


def test_a_record_that_is_none_does_not_stand_for_a_finished_run(tiny_run, tmp_path):
    cfg = tiny_run("optim.epochs=0", "alphas=1")
    train(cfg)
    (metrics,) = (tmp_path / "runs").rglob("metrics.json")
    metrics.write_text("{}")

    with pytest.raises(InputError, match=r"metrics\.json is not what kravl writes: missing or invalid: backbone"):
        train(cfg)


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_run, tmp_path):
    train(tiny_run(f"runs={tmp_path}/whole", "optim.epochs=1"))
    halves = ("loading.batch_size=4", "loading.min_batches=6", "++trainer.accumulate_grad_batches=2")
    train(tiny_run(f"runs={tmp_path}/halves", "optim.epochs=1", *halves))

    whole, summed = (load_file(run_folder(tmp_path, runs) / "adapter.safetensors") for runs in ("whole", "halves"))

    for name, tensor in whole.items():
        torch.testing.assert_close(summed[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_states_before(tiny_run, tmp_path):
    with pytest.raises(SystemExit, match=r"is (nan|inf) at step \d+, epoch \d, .*lower optim.lr.* D/\d.png.*good"):
        train(tiny_run("optim.lr=1e30", "trainer.gradient_clip_val=null"))

    folder = run_folder(tmp_path)
    assert list((folder / "checkpoints").glob("step=*.ckpt"))
    assert not (folder / "metrics.json").exists()


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(tiny_run, tmp_path):
    with full_disk(room=100_000), pytest.raises(SystemExit, match="cannot write the checkpoint"):
        train(tiny_run())
    assert list((run_folder(tmp_path) / "checkpoints").iterdir()) == []

    assert train(tiny_run())["metrics"]


def evaluation(tmp_path: Path, *overrides: str):
    quiet = ("++trainer.enable_progress_bar=false",)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("evaluate", [f"run={run_folder(tmp_path)}", *quiet, *overrides])


def test_a_finished_run_is_evaluated_later_to_the_same_numbers(tiny_run, tmp_path):
    trained = train(tiny_run(backbone=CLIP))

    later = evaluate_run(evaluation(tmp_path, "alphas=3", SERIF))

    assert trained["metrics"].items() <= later["metrics"].items() | {("ood_mean", None), ("harmonic_mean", None)}
    assert {k: v for k, v in later["zero_shot"].items() if k.startswith("test/")} == {
        k: v for k, v in trained["zero_shot"].items() if k.startswith("test/")
    }
    assert [point["alpha"] for point in later["wise_ft"]] == [0.5]
    assert "serif/accuracy" in later["metrics"]
    assert json.loads((run_folder(tmp_path) / "evaluations/in_domain.json").read_text()) == later
    kept = json.loads((run_folder(tmp_path) / "evaluations/in_domain/details.json").read_text())
    assert sum(kept["hits"]["adapted"]) / sum(kept["images"]) == later["metrics"]["test/accuracy"]
    assert set(kept["reliability"]["zero_shot"]) == {"test", "serif"}


def test_an_adapter_of_other_weights_is_refused(tiny_run, tmp_path):
    train(tiny_run())
    config = run_folder(tmp_path) / "config.yaml"
    config.write_text(config.read_text().replace("seed: 1\n", "seed: 2\n"))  # other random base weights

    with pytest.raises(InputError, match="does not fit this model: its base_sha256"):
        evaluate_run(evaluation(tmp_path))


def test_the_schema_refuses_a_saved_config_with_an_unknown_key(tiny_run, tmp_path):
    train(tiny_run())
    config = run_folder(tmp_path) / "config.yaml"
    config.write_text(config.read_text() + "extra: 1\n")

    with pytest.raises(InputError, match="'extra'"):
        evaluate_run(evaluation(tmp_path))


# a method that is an adapter and nothing else is held by the contract tests; some of them stand for the others
ADAPTERS = {path.stem for path in (ROOT / "configs/adapter").glob("*.yaml")} - {"kra", "lora", "dora", "full", "shira"}
METHODS = sorted({path.stem for path in (ROOT / "configs/method").glob("*.yaml")} - ADAPTERS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_a_clip(tiny_run, method):
    patterns = {"last_blocks": ("unfreeze=[visual.*resblocks.1.*]",), "cross_modal": ("head.steps=50",)}
    patterns["coop"] = ("context_tokens=4",)  # the text tower is short
    steps = ["optim.epochs=0"] if method == "zeroshot" else ["optim.steps=2"]

    metrics = train(tiny_run(f"method={method}", *steps, *patterns.get(method, ()), backbone=CLIP))

    same = metrics["metrics"] == metrics["zero_shot"]
    assert same == (method == "zeroshot")


def test_wandb_without_a_key_is_offline_and_holds_the_run(tiny_run, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    train(tiny_run("tracking=wandb"))

    (run,) = run_folder(tmp_path).glob("wandb/offline-run-*")
    assert list(run.glob("run-*.wandb"))


WRONG = {
    "a trainer argument": ("++trainer.presicion=bf16", "'trainer.presicion': did you mean 'trainer.precision'"),
    "an argument that kravl sets": ("++trainer.max_epochs=3", "trainer.max_epochs is set through optim.epochs"),
    "a precision": ("trainer.precision=17", "unknown trainer.precision '17'"),
    "a preset of sites": ("sites=visoin", "unknown sites preset 'visoin': did you mean 'vision'"),
    "a site": ("targets=[blocks.*.attn.query]", "'blocks.*.attn.query' matches no"),
    "overlapping sites": ("targets=[blocks.*.attn.qkv,blocks.*.attn.q]", "adapted twice"),
    "an unfrozen parameter": ("unfreeze=[blocks.*.biass]", "'blocks.*.biass' matches no"),
    "an adapter's setting": ("++adapter.scael=1", "unknown setting of KRAdapter 'scael': did you mean 'scale'"),
    "a class": ("adapter._target_=kravl.adapters.kra.KRAdaptor", "did you mean 'KRAdapter'"),
    "a foreign class": ("adapter._target_=torch.nn.Linear", "is outside"),
    "a protocol": ("split_protocol=copo", "unknown split_protocol 'copo': did you mean 'coop'"),
    "too many shots": ("shots=7", r"fewer than shots=7 training images: A \(6\), B \(6\)"),
    "a tracker": ("tracking=wandbb", "unknown tracking 'wandbb': did you mean 'wandb'"),
    "an augmentation": ("loading.augmentation=crop", "unknown loading.augmentation 'crop'"),
    "a template": ("data.templates=openai8", "unknown template set 'openai8': did you mean 'openai80'"),
    "no length": ("optim.epochs=null", "one of them must be a number"),
    "a folder": ("data_root=/nowhere", "/nowhere"),
    "a timm model": ("backbone.build.name=vit_tinny_patch16_224", "did you mean 'vit_tiny_patch16_224'"),
    "a checkpoint": ("backbone.build.pretrained=/no/file.safetensors", "no checkpoint '/no/file.safetensors'"),
    "a name": ("name=a/b", "is not a folder name"),
    "a warm-up": ("optim.warmup_steps=7", "optim.warmup_steps=7: the run has 6 steps in 2 epochs"),
    "a label": ("label=zero-shot", "label=zero-shot is what reports call the untrained model"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_user_got_wrong_is_said_before_anything_is_trained(tiny_run, tmp_path, what):
    override, message = WRONG[what]

    with pytest.raises(InputError, match=message.replace("[", r"\[")) as caught:
        train(tiny_run(override))

    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("runs/*/*/checkpoints"))


def test_all_unreadable_images_are_named_before_training_starts(tiny_run, glyphs, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(glyphs, root)
    (root / "glyphs/train/A/0.png").write_bytes(b"")
    (root / "glyphs/test/B/3.png").write_text("<html>")

    with pytest.raises(InputError) as caught:
        train(tiny_run(f"data_root={root}"))

    assert "A/0.png" in str(caught.value)
    assert "B/3.png" in str(caught.value)


@pytest.mark.long
@pytest.mark.assets
def test_a_real_vit_learns_real_photographs(assets, tmp_path):
    small = ["shots=4", "optim.steps=12", "loading.batch_size=16", "backbone.build.image_size=70"]
    small += ["evaluation=in_domain", "trainer.precision=auto"]  # bfloat16 without instructions for it takes minutes
    where = (f"data_root={assets}", f"runs={tmp_path}", "tracking=none", "++trainer.enable_progress_bar=false")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["experiment=vits14_pacs", "method=kra", *small, *where])

    metrics = train(cfg)

    assert metrics["trainable_parameters"] == 12 * 107_520 + 7 * 385  # KRAdapter on 36 matrices, and the head
    assert metrics["metrics"]["test/accuracy"] > 0.5  # seven classes; the largest is a quarter of the test images
