"""Row 14: files of weights from a stranger, through every place that loads one: nothing in them runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from faults.campaign import Outcome, Row
from faults.payloads import PAYLOADS
from safetensors.torch import save_file

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters
from kravl.adapters.lora import LoRA
from kravl.analysis.approximation.stored import Delta, Pretrained
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.vit import VitClassifier
from kravl.data.sources.arrays import _load
from kravl.runtime.errors import InputError
from kravl.training.checkpoint import SafeCheckpointIO
from kravl.training.spectrum_monitor import read_trace

MODEL = {"embed_dim": 8, "vision_cfg": {"layers": 1, "width": 8, "head_width": 4, "patch_size": 16, "image_size": 16}}
TEXT = {"layers": 1, "width": 8, "heads": 2, "vocab_size": 49408, "context_length": 8}
Place = Callable[[Path], object]


def _adapters() -> AdapterSet:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 2}
    model = timm.models.vision_transformer.VisionTransformer(**sizes)
    return inject(model, partial(LoRA, rank=1, alpha=1), ["blocks.*.attn.q"])


def _beside(file: Path, name: str) -> Path:
    """A folder that holds ``file`` under the name that a loader looks for."""
    folder = file.with_name(f"{file.stem}-as-{name}".replace("/", "-"))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder / name)
    return folder


def _local_dir(file: Path) -> object:
    folder = _beside(file, f"model{file.suffix}")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**MODEL, "text_cfg": TEXT}}))
    return ClipClassifier(["a"], ["{}"], name=f"local-dir:{folder}", pretrained=None)


def _checkpoint(file: Path) -> object:
    folder = _beside(file, "tensors.safetensors")
    (folder / "state.json").write_text("{}")
    (folder / "manifest.json").write_text("{}")
    return SafeCheckpointIO().load_checkpoint(folder)


PLACES: dict[str, Place] = {
    "backbone.build.pretrained of CLIP": lambda file: ClipClassifier(
        ["a"], ["{}"], name="ViT-B-32", pretrained=str(file), quick_gelu=False
    ),
    "backbone.build.pretrained of ViT": lambda file: VitClassifier(
        ["a"], [], name="vit_tiny_patch16_224", pretrained=str(file)
    ),
    "backbone.build.name=local-dir": _local_dir,
    "the adapter of a run": lambda file: load_adapters(_adapters(), file),
    "a checkpoint to go on from": _checkpoint,
    "recorded spectra": read_trace,
    "target=pretrained": lambda file: Pretrained(str(file), "*").matrix((2, 2), torch.Generator()),
    "target=delta": lambda file: Delta(str(_beside(file, "adapter.safetensors")), "*").matrix(
        (2, 2), torch.Generator()
    ),
    "arrays of a data set": _load,
}


@pytest.fixture(autouse=True)
def _unsafe_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # users set it to load old checkpoints; then whatever does not say weights_only=True runs pickles
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def attempts(folder: Path, payloads: list[str], places: list[str]) -> Iterator[str]:
    """A line for each payload that ran, or that was not refused in one line with the name of its file."""
    for number, name in enumerate(payloads):
        marker = folder / f"marker{number}"
        ending, make = PAYLOADS[name]
        file = folder / f"payload{number}{ending}"
        file.write_bytes(make(marker))
        for place in places:
            try:
                PLACES[place](file)
                said = "it was loaded"
            except InputError as error:
                said = "" if f"payload{number}" in str(error) and "\n" not in str(error) else f"it says {error}"
            if marker.exists():
                yield f"{name} ran through {place}"
                marker.unlink()
            if said:
                yield f"{name} through {place}: {said}"


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` payloads through every place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        payloads = list(PAYLOADS)[:count]
        found = list(attempts(folder, payloads, list(PLACES)))
    ran = sum(" ran through " in line for line in found)
    return Outcome(len(payloads), f"{ran} marker files; {len(payloads)} payloads, {len(PLACES)} places", found)


ROW = Row(14, "hostile checkpoints and adapters", "30 payloads, 0 marker files", len(PAYLOADS), 30, run)


@pytest.mark.parametrize("place", PLACES)
def test_no_payload_runs_and_each_is_refused_by_name(place: str, tmp_path: Path) -> None:
    assert list(attempts(tmp_path, list(PAYLOADS), [place])) == []


def test_the_payloads_are_live(tmp_path: Path) -> None:
    ran = []
    for number, name in enumerate(("reduce", "reduce, old format", "exec", "os.system")):
        marker = tmp_path / f"marker{number}"
        file = tmp_path / f"payload{number}"
        file.write_bytes(PAYLOADS[name][1](marker))
        torch.load(file, weights_only=False)
        ran.append(marker.exists())

    assert ran == [True] * 4


@pytest.mark.parametrize("place", ["ClipClassifier", "VitClassifier"])
def test_an_address_is_no_path_of_weights(place: str) -> None:
    url = "http://127.0.0.1:9/weights.pt"

    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/weights\.pt"):
        if place == "ClipClassifier":
            ClipClassifier(["a"], ["{}"], name="ViT-B-32", pretrained=url)
        else:
            VitClassifier(["a"], [], name="vit_tiny_patch16_224", pretrained=url)


HOSTILE_MODELS = {
    "code of a tokenizer": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}},
    "a file for a tokenizer": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}},
    "a tower by path": {"hf_model_name": "/their/folder"},
    "no mapping": [1, 2],
}


@pytest.mark.parametrize("kind", HOSTILE_MODELS)
def test_a_folder_of_a_model_that_asks_for_more_than_its_weights_is_refused(kind: str, tmp_path: Path) -> None:
    config = {"model_cfg": {**MODEL, "text_cfg": HOSTILE_MODELS[kind]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))

    with pytest.raises(InputError, match=r"open_clip_config\.json (is refused|describes no model)"):
        ClipClassifier(["a"], ["{}"], name=f"local-dir:{tmp_path}", pretrained=None)


def test_values_that_are_not_finite_and_a_description_of_another_kind_are_refused(tmp_path: Path) -> None:
    from kravl.adapters.injection.serialization import save_adapters

    adapters = _adapters()
    with torch.no_grad():
        next(iter(adapters.state_dict().values())).fill_(float("nan"))
    save_adapters(adapters, tmp_path / "nan.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "list.safetensors", {"kravl": "[1]"})
    save_file({"a": torch.ones(2)}, tmp_path / "deep.safetensors", {"kravl": "[" * 100_000})

    for name, reason in (("nan", "not finite"), ("list", "not a JSON object"), ("deep", "not JSON")):
        with pytest.raises(InputError, match=reason):
            load_adapters(_adapters(), tmp_path / f"{name}.safetensors")


def test_an_array_of_plain_numbers_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.arange(3))

    assert _load(tmp_path / "labels.npy").tolist() == [0, 1, 2]
