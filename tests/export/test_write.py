"""An export scores as the run does, in a process without kravl, and has its weights; else nothing is left of it."""

import importlib
import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from kravl.adapters.injection.serialization import read_adapters
from kravl.backbones.preprocess import Preprocess
from kravl.backbones.weights import hf_clip
from kravl.cli.main import main
from kravl.config.compose import typed
from kravl.data.loading.transforms import CentreCrop, Normalization
from kravl.export import worker
from kravl.export.check import KRAVL, ExportError, Reference, difference, picture, write_inputs
from kravl.export.formats import timm as timm_format
from kravl.export.target import check_run, formats
from kravl.export.write import export_run
from kravl.run.finished.calibration import Calibration, adapter_sha256
from kravl.run.finished.restore import load_run
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder

NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "transformers": ("transformers",)}
NEEDS["peft"] = ("peft", "transformers")
# checked in another process here too; a process for each would take a minute
APART = (("onnx", "clip"), ("open_clip", "clip"), ("peft", "clip"))

CALIBRATED = ("onnx", "pt2")  # of a run with a temperature: the probabilities of load.py are checked with it


def with_temperature(run: Path, folder: Path) -> Path:
    """A copy of ``run`` with a temperature of 3."""
    copied = RunFolder(shutil.copytree(run, folder / "calibrated"))
    Calibration(3.0, 8, "digest", (2.0, 1.0), (0.2, 0.1), adapter_sha256(copied), {}).write(copied)
    return copied.path


def difference_here(folder: Path, expected: Reference) -> float:
    """As `difference`, by the same worker in this process."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr("sys.meta_path", [*sys.meta_path])
        worker.main([str(folder), str(write_inputs(folder.parent, expected)), KRAVL])
    return float(json.loads(said.getvalue().splitlines()[-1])["difference"])


@pytest.fixture
def runs(finished_run: Path, finished_vit: Path, finished_lora: Path) -> dict[str, Path]:
    return {"clip": finished_run, "vit": finished_vit, "lora": finished_lora}


@pytest.fixture
def thesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the user's in the folder ``there`` of the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kravl.run.finished.restore.build_model", lambda *_, **__: pytest.fail("weights were loaded"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there/thesis.tex").write_text("the only copy")
    return tmp_path / "there/thesis.tex"


def merged(run: Path, alpha: float = 1.0) -> dict[str, torch.Tensor]:
    loaded = load_run(run)
    loaded.adapters.merge(alpha)
    loaded.adapters.merge_and_unload()
    return dict(loaded.classifier.encoder().state_dict())


def weights_of(to: str, folder: Path) -> dict[str, torch.Tensor]:
    """What is in the files of an export, under the names of the run's own encoder."""
    if to == "transformers":
        return hf_clip.renamed(load_file(folder / "model.safetensors"))
    return load_file(folder / ("model.safetensors" if to == "timm" else "open_clip_model.safetensors"))


@pytest.mark.parametrize(
    ("to", "run", "alpha"),
    [
        ("open_clip", "clip", 0.5),
        ("timm", "vit", 1.0),
        ("transformers", "clip", 1.0),
        ("peft", "lora", 1.0),
        pytest.param("peft", "clip", 1.0, marks=pytest.mark.long),
        ("pt2", "clip", 1.0),
        pytest.param("onnx", "clip", 1.0, marks=pytest.mark.long),
    ],
)
def test_an_export_scores_as_the_run_does_without_kravl(runs, tmp_path, monkeypatch, to, run, alpha):
    if missing := [name for name in NEEDS.get(to, ()) if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    if (to, run) not in APART:
        monkeypatch.setattr("kravl.export.write.difference", difference_here)
    out = tmp_path / "model"

    source = with_temperature(runs[run], tmp_path) if to in CALIBRATED else runs[run]
    loaded = load_run(source)

    export = export_run(loaded, to, out, alpha)

    assert 0 <= export.difference <= export.tolerance == (1e-3 if to == "onnx" else 1e-5)
    assert [path.name for path in tmp_path.iterdir() if path != source] == ["model"]
    assert ("temperature 3.0000" in (out / "README.md").read_text()) == (to in CALIBRATED)
    about = json.loads((out / "export.json").read_text())
    assert (about["format"], about["alpha"], about["class_names"]) == (to, alpha, ["A", "B", "C", "D"])
    assert about["temperature"] == (3.0 if to in CALIBRATED else 1.0)
    if to in ("open_clip", "timm", "transformers"):
        found, expected = weights_of(to, out), merged(runs[run], alpha)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    if to == "peft" and run == "lora":
        _loads_back(out, runs[run])
    assert (
        about.get("extensions", [])
        == list(export.extensions)
        == (["kravl.peft"] if (to, run) == ("peft", "clip") else [])
    )
    card = ModelCard((out / "README.md").read_text())
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert ("`load.py` needs" in card.text and "which were not evaluated" in card.text) or alpha == 1


def _loads_back(folder: Path, run: Path) -> None:
    """PEFT's files hold, under its names, the factors of the run's adapter."""
    _, adapters = read_adapters(run / "adapter.safetensors")
    saved = load_file(folder / "adapter_model.safetensors")
    name = "vision_model.encoder.layers.0"
    a, b = (adapters[f"visual.transformer.resblocks.0.attn.qkv.{part}"] for part in "ab")
    for third, part in enumerate("qkv"):
        key = f"base_model.model.{name}.self_attn.{part}_proj"
        assert torch.equal(saved[f"{key}.lora_A.weight"], a)
        assert torch.equal(saved[f"{key}.lora_B.weight"], b.chunk(3)[third])


def test_an_export_whose_logits_differ_is_removed(finished_vit, tmp_path, monkeypatch, capsys):
    write = timm_format.write

    def wrong(model: Any, folder: Path) -> list[str]:
        model.encoder.head.bias.add_(1e-3)
        return list(write(model, folder))

    monkeypatch.setattr(timm_format, "write", wrong)
    monkeypatch.setattr("kravl.export.write.difference", difference_here)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/export.json").write_text("{}")

    assert main(["export", str(finished_vit), "--to", "timm", "--out", str(tmp_path / "old"), "--force"]) == 1

    assert "error: the logits of the export differ by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "export.json"]  # the earlier one is kept


def test_the_other_process_has_no_kravl(tmp_path):
    (tmp_path / "load.py").write_text("import kravl.adapters.kra\n")

    with pytest.raises(ExportError, match=r"does not load without kravl: ImportError: kravl.* is not to be imported"):
        difference(tmp_path, Reference([picture(8, 9, 0)], torch.zeros(1, 2)))
    assert worker.WithoutKravl().find_spec("numpy") is None
    with_peft = worker.WithoutKravl(worker.WITH_EXTENSION)
    assert all(with_peft.find_spec(name) is None for name in ("kravl", "kravl.peft.kra", "kravl.adapters.base"))
    for name in ("kravl.run", "kravl.training.learner", "kravl.pefty"):
        with pytest.raises(ImportError, match="is not to be imported here"):
            with_peft.find_spec(name)


def test_no_loader_imports_kravl():
    for path in (Path(worker.__file__).parent / "loaders").glob("[!_]*.py"):
        assert "kravl" not in path.read_text(), path


@pytest.mark.parametrize(
    ("size", "mode", "resize"), [(32, "shortest", 40), ((24, 32), "longest", (24, 32)), (32, "squash", 32)]
)
def test_pictures_are_prepared_as_kravl_does(size, mode, resize):
    prepare = importlib.import_module("kravl.export.loaders.pictures").prepare
    preprocess = Preprocess(size, resize, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic", mode, (1, 2, 3))
    pictures = [picture(97, 131, 0), picture(50, 20, 1), picture(20, 31, 2)]
    crop, normalize = CentreCrop.of(preprocess), Normalization(preprocess.mean, preprocess.std)

    expected = normalize([crop(picture).transpose(2, 0, 1) for picture in pictures]).numpy()
    assert np.array_equal(prepare(pictures, preprocess.recorded()), expected)


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        ("clip", ["--to", "timm"], "timm holds image classifiers with a linear head"),
        ("vit", ["--to", "open_clip"], "open_clip holds an image and a text tower; vit_tiny_random has an image tower"),
        ("vit", ["--to", "peft"], "open_clip holds an image and a text tower; vit_tiny_random has an image tower"),
        ("lora", ["--to", "peft", "--alpha", "0.5"], "--alpha 0.5 is of merged weights"),
        ("clip", ["--to", "openclip"], "unknown format 'openclip': did you mean 'open_clip'?"),
        ("clip", ["--to", "pt2", "--alpha", "2"], "alpha=2.0: from 0"),
        ("vit", ["--to", "timm", "--alpha", "0"], "knows no class without training"),
        ("clip", ["--to", "pt2", "--out", "no/such/folder"], "no folder 'no/such' for folder"),
        ("clip", ["--to", "pt2", "--out", "/proc/model"], "the export cannot be written to /proc/model"),
        ("clip", ["--to", "pt2", "--out", "there"], "there is there already; --force replaces it"),
        ("clip", ["--to", "pt2", "--out", "there", "--force"], "there is no export of kravl"),
        ("nothing", ["--to", "pt2"], "no run 'nothing'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(runs, thesis, capsys, run, arguments, message):
    assert main(["export", str(runs.get(run, run)), *arguments]) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert thesis.read_text() == "the only copy"


@pytest.mark.parametrize(
    ("to", "settings", "alpha", "message"),
    [
        (
            "peft",
            ["+backbone.build.dtype=bf16"],
            1.0,
            "--to peft gives the base its own weights, and backbone.build.dtype=bf16",
        ),
        ("peft", ["method=2sfs"], 1.0, "--to peft writes adapted matrices, of which 2sfs has none: --to transformers"),
        (
            "peft",
            ["method=lora", "linear_head=true"],
            1.0,
            r"lora has trained class weights \(linear_head\)",
        ),
        ("peft", ["method=shira"], 1.0, "PEFT has no method for 'kravl.adapters.shira.SHiRA'"),
        ("open_clip", ["method=ncm"], 1.0, "--to open_clip has no place for NearestClassMean, a head on features"),
        ("pt2", ["method=ncm"], 0.5, r"alpha=0\.5: NearestClassMean does not start at zero-shot: .*; it may be 1 \("),
        ("pt2", ["method=coop"], 0.5, r"alpha=0\.5: a learned context \(context_tokens=16\) takes the place of words"),
    ],
)
def test_what_a_format_cannot_hold_is_known_from_a_runs_settings(tiny_run, to, settings, alpha, message):
    if missing := [name for name in NEEDS.get(to, ()) if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    cfg = typed(tiny_run(*settings, backbone=("backbone=kravl_tiny",)))

    lora = "kravl.adapters.lora.LoRA"
    adapters = {"method=shira": "kravl.adapters.shira.SHiRA", "method=lora": lora, "+backbone.build.dtype=bf16": lora}

    with pytest.raises(InputError, match=message):
        check_run(to, cfg, adapters.get(settings[0]), alpha)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Could not find a config file in base")  # PEFT looks from the working folder
@pytest.mark.parametrize(("method", "extensions"), [("kra", ("kravl.peft",)), ("lora", ())])
def test_a_run_on_queries_keys_and_values_apart_goes_to_transformers_trains_on_there_and_comes_back(
    tiny_run, tmp_path, method, extensions
):
    if missing := [name for name in NEEDS["peft"] if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    train(tiny_run(f"method={method}", "sites=cliplora", "optim.lr=3e-3", backbone=("backbone=kravl_tiny",)))
    (path,) = (tmp_path / "runs").glob("*/*")

    export = export_run(load_run(path), "peft", tmp_path / "model")

    assert 0 <= export.difference <= 1e-5
    assert (tmp_path / "model/base/config.json").is_file() and export.extensions == extensions
    run = load_run(path)
    images, words, before, after = _trained_on_in_peft(tmp_path / "model", tmp_path / "further")
    encoder = run.classifier.encoder()
    _close(encoder, images, words, before)
    run.adapters.merge(0.0)
    run.adapters.merge_and_unload()  # the pretrained weights

    from kravl.peft import load_from_peft
    from kravl.peft.clip_names import open_clip_to_hugging_face

    load_from_peft(encoder, tmp_path / "further", open_clip_to_hugging_face)

    _close(encoder, images, words, after)
    assert not torch.allclose(before, after, atol=1e-2)


def _trained_on_in_peft(folder: Path, out: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, tokens, and their cosines before and after a step of training in PEFT of the adapter in ``folder``."""
    from peft import PeftModel
    from transformers import CLIPModel, CLIPTokenizer

    model = PeftModel.from_pretrained(CLIPModel.from_pretrained(folder / "base"), folder, is_trainable=True).eval()
    size = model.config.vision_config.image_size
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "base")
    words = tokenizer(["a drawing", "the letter a", "b"], padding="max_length", return_tensors="pt")["input_ids"]

    def cosines() -> torch.Tensor:
        found = model(input_ids=words, attention_mask=torch.ones_like(words), pixel_values=images)
        return found.image_embeds @ found.text_embeds.T

    before = cosines()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    before.diagonal().sum().backward()
    optimiser.step()
    model.save_pretrained(out)
    return images, words, before.detach(), cosines().detach()


@torch.no_grad()
def _close(encoder: Any, images: torch.Tensor, words: torch.Tensor, expected: torch.Tensor) -> None:
    found = encoder.encode_image(images, normalize=True) @ encoder.encode_text(words, normalize=True).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_not_installed_is_told(finished_run, monkeypatch):
    onnx = importlib.import_module("kravl.export.formats.onnx")
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"needs onnx, onnxruntime, onnxscript: pip install 'kravl\[onnx\]'"):
        onnx.require(None, None, 1.0)
    assert formats() == ["onnx", "open_clip", "peft", "pt2", "timm", "transformers"]
