"""``init=RUN``: training starts from a finished run's adapters, which are checked before any weight is loaded."""

import json
import shutil
from pathlib import Path

import letters
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_run import VIT

from kravl.adapters.injection.adapter_set import sha256
from kravl.config.compose import typed
from kravl.run.build import build_run, make_data
from kravl.run.finished.saved import seen_classes
from kravl.run.inputs import trained_on
from kravl.run.sources import list_sources
from kravl.run.train import check, train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import find_run

TINY_CLIP = ("backbone=kravl_tiny",)
STILL = ("optim.lr=0", "optim.epochs=1", "spectrum_every=0")  # no step changes anything


def only_run(folder: Path) -> Path:
    (run,) = folder.glob("*/seed*")
    return run


def test_a_run_starts_from_the_adapters_of_another(tiny_run, finished_run, tmp_path):
    moved = shutil.copytree(finished_run, tmp_path / "moved/seed1-x")
    settings = [f"init={finished_run}", *STILL]
    metrics = train(tiny_run(*settings, backbone=TINY_CLIP))

    run = only_run(tmp_path / "runs")
    source, result = (load_file(folder / "adapter.safetensors") for folder in (finished_run, run))
    assert all(torch.equal(result[name], tensor) for name, tensor in source.items())
    before = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["metrics"] == before["metrics"] and metrics["zero_shot"] == before["zero_shot"]
    assert metrics["init"] == {"run": "/".join(finished_run.parts[-2:]), "adapter": metrics["config"]["init"]}
    assert json.loads((run / "model.json").read_text())["seen"] == ["A", "B", "C", "D"]
    assert "init" not in before and str(finished_run) not in (run / "config.yaml").read_text()

    # the same adapter in another folder is the same run, and no init another
    assert train(tiny_run(f"init={moved.parent / 'seed1'}", *STILL, backbone=TINY_CLIP)) == metrics
    train(tiny_run(*STILL, backbone=TINY_CLIP))
    assert len(list((tmp_path / "runs").glob("*/seed*"))) == 2


def test_a_head_keeps_the_rows_of_classes_that_both_have(tiny_run, tmp_path):
    train(tiny_run("linear_head=true", "optim.epochs=1", f"runs={tmp_path}/first", backbone=TINY_CLIP))
    first = only_run(tmp_path / "first")
    letters.write(tmp_path / "data/glyphs", "BDE")
    settings = (f"init={first}", "linear_head=true", *STILL, f"data_root={tmp_path / 'data'}")
    further = tiny_run(*settings, backbone=TINY_CLIP)

    train(further)

    source, result = (load_file(f / "adapter.safetensors") for f in (first, only_run(tmp_path / "runs")))
    untrained = build_run(typed(further)).adapters.state_dict()["class_weight"]
    assert torch.equal(result.pop("class_weight"), torch.cat([source["class_weight"][[1, 3]], untrained[2:]]))
    assert all(torch.equal(tensor, source[name]) for name, tensor in result.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=lora"], r"does not fit this run: its method is KRAdapter, the model's is LoRA$"),
        (["adapter.scale=1"], r"its hyperparameters differ in 1: \{'scale': 2.0\}, the model's are \{'scale': 1\}"),
        (["sites=vision"], "its sites differ in"),
        (["+backbone.build.dtype=bf16"], "is of another backbone: dtype None, and not bf16"),
        ([*VIT], "is of another backbone: name kravl-tiny, and not"),
        (["linear_head=true"], "has linear_head=False, and this run linear_head=True: they train other parameters"),
        (["optim.epochs=0"], "without training would be that run again: kravl evaluate run="),
        (["init=runs/nothing/seed1"], "no run 'runs/nothing/seed1'"),
    ],
)
def test_adapters_that_do_not_fit_are_told_before_weights_are_loaded(
    tiny_run, finished_run, monkeypatch, overrides, message
):
    monkeypatch.setattr("kravl.backbones.clip.load_clip", lambda chosen: pytest.fail("the weights were loaded"))

    with pytest.raises(InputError, match=message):
        train(tiny_run(f"init={finished_run}", *overrides, backbone=TINY_CLIP))


def test_classes_and_images_that_init_was_trained_on_are_not_new(tiny_run, finished_run, glyphs, caplog):
    """A run on all classes, continued on half of them, has seen the other half; nothing is trained here."""
    halves = ("data.classes=base", "evaluation=base_to_new")
    cfg = typed(tiny_run(*halves, backbone=TINY_CLIP))
    data = make_data(cfg, list_sources(cfg))

    assert trained_on(cfg, data, ["A", "C", "elsewhere"]) == {
        "trained_on": ["1 of the 2 classes of new are trained on by init (C)"]
    }
    assert "metrics of these are not those of new classes" in caplog.text
    assert seen_classes(find_run(str(finished_run))) == ("A", "B", "C", "D")
    drawn = "evaluation=folder", f"evaluation.root={glyphs}/glyphs/train", "shots=2"
    of_init = typed(tiny_run(*drawn, f"init={finished_run}", backbone=TINY_CLIP))
    (line,) = trained_on(of_init, make_data(of_init, list_sources(of_init)))["trained_on"]
    assert line.endswith("16 of the 16 images of folder are trained on by init, byte for byte")


def test_a_run_that_is_refused_before_it_trains_leaves_no_folder(tiny_run, finished_run, tmp_path, monkeypatch):
    def other_weights(*_):
        raise InputError("of other base weights")

    monkeypatch.setattr("kravl.run.fit.start_from_init", other_weights)
    with pytest.raises(InputError, match="of other base weights"):
        train(tiny_run(*STILL))
    assert not list((tmp_path / "runs").glob("*/seed*"))
    with pytest.raises(InputError, match="nothing to train: sites is null"):
        check(typed(tiny_run("method=zeroshot", "optim.epochs=1", backbone=TINY_CLIP)))


def test_a_run_whose_adapter_was_exchanged_is_another_run(tiny_run, finished_run, finished_vit, tmp_path):
    half = shutil.copytree(finished_run, tmp_path / "half/seed1-x")
    (half / "metrics.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        train(tiny_run(f"init={half}", backbone=TINY_CLIP))

    exchanged = shutil.copytree(finished_run, tmp_path / "exchanged/seed1-x")
    shutil.copy(finished_vit / "adapter.safetensors", exchanged)
    with pytest.raises(InputError, match="does not fit this run: its sites differ"):
        train(tiny_run(f"init={exchanged}", backbone=TINY_CLIP))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e5m2])
def test_tensors_of_another_kind_are_not_cast(tiny_run, finished_run, tmp_path, dtype):
    theirs = shutil.copytree(finished_run, tmp_path / "theirs/seed1-x")
    with safe_open(theirs / "adapter.safetensors", "pt") as file:
        record, tensors = json.loads(file.metadata()["kravl"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    record["tensors_sha256"] = sha256(tensors)
    save_file(tensors, theirs / "adapter.safetensors", {"kravl": json.dumps(record)})

    with pytest.raises(InputError, match=r"holds tensors of another kind|not finite"):
        train(tiny_run(f"init={theirs}", *STILL, backbone=TINY_CLIP))


@pytest.mark.parametrize("content", ["{}", "", "[1]", "{"])
def test_a_run_with_a_damaged_record_is_no_start(tiny_run, finished_run, tmp_path, content):
    theirs = shutil.copytree(finished_run, tmp_path / "theirs/seed1-x")
    (theirs / "metrics.json").write_text(content)

    with pytest.raises(InputError, match=r"metrics\.json is not"):
        train(tiny_run(f"init={theirs}", *STILL, backbone=TINY_CLIP))
