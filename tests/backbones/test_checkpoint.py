"""Weights as people have them load what open_clip's and timm's own loaders load; the rest is told by name."""

import argparse
import json
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from faults.payloads import hand_written, repacked, saved, scripted
from safetensors.torch import save_file
from torch import Tensor, nn

from kravl.backbones.clip import ClipClassifier
from kravl.backbones.vit import VitClassifier
from kravl.backbones.weights.torchscript import read_torchscript
from kravl.runtime.errors import InputError

State = dict[str, Tensor]
CONFIG = json.loads((Path(__file__).parents[1] / "fixtures/tiny-clip.json").read_text())
HUGGING_FACE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".c_fc.": ".fc1.",
    ".c_proj.": ".fc2.",
    ".attn.": ".self_attn.",
}


def vit(path: Path | None, name: str = "test_vit", **settings: Any) -> VitClassifier:
    return VitClassifier(["a", "b"], (), name=name, pretrained=False if path is None else str(path), **settings)


def clip(path: Path | None) -> ClipClassifier:
    return ClipClassifier(["a", "b"], ["a {}."], name="tiny-checkpoint", pretrained=path and str(path))


@pytest.fixture(autouse=True)
def _tiny_clip(tmp_path: Path) -> None:
    folder = tmp_path / "model_configs"
    folder.mkdir()
    (folder / "tiny-checkpoint.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)


@pytest.fixture(params=["timm", "open_clip"])
def library(request: pytest.FixtureRequest) -> Any:
    return {"timm": vit, "open_clip": clip}[request.param]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def others(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


WRAPPED = {
    "a trainer": lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3},
    "DeiT and MAE": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
    "a metric as a tensor": lambda s: {"state_dict": s, "best_acc1": torch.tensor(0.7)},
    "a tutorial": lambda s: {"model_state_dict": s, "loss": 0.1},
    "averaged weights": lambda s: {"model": others(s), "model_ema": s},
    "averaged weights beside open_clip's": lambda s: {"state_dict": others(s), "state_dict_ema": s},
    "the settings of an average": lambda s: {"model": s, "ema": {"decay": torch.tensor(0.9)}},
    "a prefix of their own": lambda s: {"state_dict": prefixed(s, "model.bottom_up.")},
    "MoCo v3": lambda s: {"state_dict": prefixed(s, "module.base_encoder.")},
    "fastai": lambda s: {"model": prefixed(s, "0.")},
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(7), **prefixed(s, "module.")},
    "torch.compile": lambda s: {"state_dict": prefixed(s, "_orig_mod.")},
    "both wrappers": lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
    "Lightning": lambda s: {"state_dict": {**prefixed(s, "model."), "criterion.weight": torch.ones(2)}, "epoch": 1},
    "DINO": lambda s: {"student": others(s), "teacher": prefixed(s, "module.backbone.")},
    "a backbone beside its head": lambda s: {"backbone": s, "head": {"weight": torch.ones(2)}},
    "a name of their own": lambda s: {"my_network": OrderedDict(s), "step": 4},
    "no wrapper": lambda s: s,
}


@pytest.mark.parametrize("layout", WRAPPED)
def test_what_trainers_save_is_loaded(library: Any, layout: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {
        name: torch.randn_like(t) if t.is_floating_point() else t
        for name, t in library(None).model.state_dict().items()
    }
    path = tmp_path / "weights.pth"
    torch.save(WRAPPED[layout](state), path)

    loaded = library(path).model.state_dict()

    heads = {name for name in state if name.startswith("head.")}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items() if name not in heads)


def timms_own(name: str, path: Path, **settings: Any) -> State:
    overlay = {"file": str(path), "custom_load": path.suffix == ".npz"}
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=2, **settings
    ).state_dict()


def assert_as_timm(name: str, path: Path, **settings: Any) -> None:
    sizes = {"image_size": settings["img_size"]} if settings else {}
    loaded = vit(path, name, **sizes).model.state_dict()
    for key, tensor in timms_own(name, path, **settings).items():
        assert key.startswith("head.") or torch.equal(loaded[key], tensor), key


def test_dinov2_with_registers_in_its_authors_names_is_what_timm_loads(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    state = timm.create_model(name, num_classes=0, img_size=28).state_dict()
    state |= {"register_tokens": torch.randn(1, 4, 384), "mask_token": torch.zeros(1, 384)}
    state["pos_embed"] = torch.cat([torch.randn(1, 1, 384), state["pos_embed"]], 1)
    del state["reg_token"]
    torch.save(state, tmp_path / "dinov2_vits14_reg4_pretrain.pth")

    assert_as_timm(name, tmp_path / "dinov2_vits14_reg4_pretrain.pth", img_size=28)


def test_mae_with_its_decoder_is_what_timm_loads(tmp_path: Path) -> None:
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    torch.save({"model": state | decoder}, tmp_path / "mae_visualize.pth")

    assert_as_timm("test_vit", tmp_path / "mae_visualize.pth")


def googles(model: Any) -> dict[str, np.ndarray]:
    """The weights of a ViT as JAX has them: kernels are (in, ..., out), heads apart."""
    heads = model.blocks[0].attn.num_heads
    arrays = {"cls": model.cls_token, "embedding/kernel": model.patch_embed.proj.weight.permute(2, 3, 1, 0)}
    arrays |= {
        "embedding/bias": model.patch_embed.proj.bias,
        "Transformer/posembed_input/pos_embedding": model.pos_embed,
    }
    arrays |= {"Transformer/encoder_norm/scale": model.norm.weight, "Transformer/encoder_norm/bias": model.norm.bias}
    for i, block in enumerate(model.blocks):
        prefix = f"Transformer/encoderblock_{i}/"
        attention = f"{prefix}MultiHeadDotProductAttention_1/"
        for part, w, b in zip(
            ("query", "key", "value"), block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True
        ):
            arrays |= {
                f"{attention}{part}/kernel": w.T.unflatten(1, (heads, -1)),
                f"{attention}{part}/bias": b.unflatten(0, (heads, -1)),
            }
        arrays |= {f"{attention}out/kernel": block.attn.proj.weight.T.unflatten(0, (heads, -1))}
        arrays |= {f"{attention}out/bias": block.attn.proj.bias}
        for j, norm in ((0, block.norm1), (2, block.norm2)):
            arrays |= {f"{prefix}LayerNorm_{j}/scale": norm.weight, f"{prefix}LayerNorm_{j}/bias": norm.bias}
        for j, dense in ((0, block.mlp.fc1), (1, block.mlp.fc2)):
            arrays |= {
                f"{prefix}MlpBlock_3/Dense_{j}/kernel": dense.weight.T,
                f"{prefix}MlpBlock_3/Dense_{j}/bias": dense.bias,
            }
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}


def test_googles_npz_is_loaded(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    expected = timm.create_model(name, num_classes=0, img_size=32)
    np.savez(tmp_path / "Ti_16.npz", **googles(expected))

    loaded = vit(tmp_path / "Ti_16.npz", name, image_size=32).model.state_dict()

    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.state_dict().items())


def hugging_faces(state: State) -> State:
    result = {"text_model.embeddings.position_ids": torch.arange(8)[None]}
    for name, tensor in state.items():
        for openais, theirs in HUGGING_FACE.items():
            if name.startswith(openais) or (openais.startswith(".") and openais in name):
                name = name.replace(openais, theirs, 1)
        if ".in_proj_" in name:
            result |= {name.replace("in_proj_", f"{p}_proj."): t for p, t in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            result[name] = tensor.T.contiguous() if name.endswith("_projection.weight") else tensor
    return result


def test_clip_in_the_names_of_hugging_face_is_loaded(tmp_path: Path) -> None:
    state = open_clip.create_model("tiny-checkpoint").state_dict()
    theirs = hugging_faces(state)
    assert "text_model.encoder.layers.0.self_attn.q_proj.weight" in theirs
    assert not theirs.keys() & (state.keys() - {"logit_scale"})
    save_file(theirs, tmp_path / "model.safetensors")

    loaded = clip(tmp_path / "model.safetensors").model.state_dict()

    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())

    save_file(prefixed(theirs, "clip_model."), tmp_path / "wrapped.safetensors")
    wrapped = clip(tmp_path / "wrapped.safetensors").model.state_dict()
    assert all(torch.equal(wrapped[name], tensor) for name, tensor in state.items())


class Holder(nn.Module):
    """Tensors by dotted names in an archive, as OpenAI's have them: in half precision, beside three numbers."""

    def __init__(self, state: State) -> None:
        super().__init__()
        for name, tensor in state.items():
            module: nn.Module = self
            for part in name.split(".")[:-1]:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(name.rpartition(".")[2], tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x


def archive(state: State, path: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated; the files are there
        torch.jit.trace(Holder(state), torch.ones(1)).save(str(path))
    return path


def test_openais_torchscript_archive_is_loaded(tmp_path: Path) -> None:
    state = {n: t.half() for n, t in open_clip.create_model("tiny-checkpoint").state_dict().items()}
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(8), "vocab_size": torch.tensor(9)}
    path = archive(state | numbers, tmp_path / "ViT-B-32.pt")

    loaded = clip(path).model.state_dict()

    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


def test_a_trace_of_open_clip_whose_code_is_compressed_is_loaded(tmp_path: Path) -> None:
    model = open_clip.create_model("tiny-checkpoint").eval()
    inputs = torch.ones(2, 3, 32, 32), torch.ones(2, model.context_length, dtype=torch.long)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(model, inputs, check_trace=False).save(str(tmp_path / "trace.pt"))
    with zipfile.ZipFile(tmp_path / "trace.pt") as whole:
        grown = sum(member.file_size for member in whole.infolist())
    assert grown > (tmp_path / "trace.pt").stat().st_size

    loaded = clip(tmp_path / "trace.pt").model.state_dict()

    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("member", "size", "reason"),
    [("data/9", 2**20, "its members unpack to"), ("code/x.py", 2**26 + 1, "its code unpacks to 67,")],
)
def test_an_archive_whose_members_grow_is_refused(tmp_path: Path, member: str, size: int, reason: str) -> None:
    path = archive({"w": torch.ones(2)}, tmp_path / "w.pt")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr(f"w/{member}", bytes(size))
    with pytest.raises(InputError, match=reason):
        clip(path)


def test_nothing_in_a_torchscript_archive_runs(tmp_path: Path) -> None:
    marker, good = tmp_path / "marker", archive({"w": torch.ones(2)}, tmp_path / "good.pt")
    with zipfile.ZipFile(good) as whole:
        pickled = whole.read("good/data.pkl")
    attacks = {
        "a name": hand_written(marker),
        "a call": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        "a module of ours": pickled.replace(b"__torch__", b"posixpath"),
    }
    for attack, content in attacks.items():
        (tmp_path / "bad.pt").write_bytes(repacked(good.read_bytes(), pickled=content))
        with pytest.raises(pickle.UnpicklingError, match="is no part of a model"):
            read_torchscript(tmp_path / "bad.pt")
        with pytest.raises(InputError, match=r"bad\.pt is refused"):
            clip(tmp_path / "bad.pt")
        assert not marker.exists(), attack
    (tmp_path / "code.pt").write_bytes(scripted(marker))
    with pytest.raises(InputError, match=r"code\.pt is refused"):
        clip(tmp_path / "code.pt")
    assert not marker.exists()


def failure(library: Any, content: Any, path: Path) -> str:
    torch.save(content, path)
    with pytest.raises(InputError) as error:
        library(path)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_another_model_is_told_by_its_first_names_and_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = open_clip.create_model("tiny-checkpoint").state_dict()
    lacking = {n: t for n, t in state.items() if n != "ln_final.weight"} | {"extra.weight": torch.ones(2)}
    assert "1 of the model's weights are missing, first 'ln_final.weight'" in failure(clip, lacking, path)
    assert "1 others are unexpected, first 'extra.weight'" in failure(clip, lacking, path)
    wide = state | {"visual.proj": torch.ones(3, 4)}
    assert "visual.proj has shape [3, 4] where the model has [" in failure(clip, wide, path)

    assert "a ViT in timm: if that is another model, choose" in failure(clip, vit(None).model.state_dict(), path)
    assert " has shape [" in failure(vit, state, path)
    assert "the names of CLIP in open_clip" in failure(vit, state, path)
    assert "merge it into its model" in failure(vit, {"base_model.model.blocks.0.lora_A.weight": torch.ones(2)}, path)
    hugging_face = {"embeddings.cls_token": torch.ones(2), "encoder.layer.0.attention.output.weight": torch.ones(2)}
    assert "Hugging Face transformers: if that is another model, convert" in failure(vit, hugging_face, path)


def test_weights_of_another_clip_are_one_line(tmp_path: Path) -> None:
    path, state = tmp_path / "w.pt", open_clip.create_model("tiny-checkpoint").state_dict()
    wide = {n: torch.cat([t, t], -1) if n == "positional_embedding" else t for n, t in state.items()}
    rows, width = state["positional_embedding"].shape
    told = f"positional_embedding has shape [{rows}, {2 * width}] where the model has [{rows}, {width}]; they have"
    assert told in failure(clip, wide, path)
    biased = state | {"logit_bias": torch.tensor(-10.0)}
    assert "it has 'logit_bias', which the model lacks; they have the names of CLIP" in failure(clip, biased, path)
    np.savez(tmp_path / "w.npz", w=np.ones(2))
    with pytest.raises(InputError, match=r"w\.npz' do not load .* big_vision fits models whose image tower is timm's"):
        clip(tmp_path / "w.npz")


ODD = {
    "empty": (b"", ".pth", "it is empty; download it again"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ".safetensors", "git lfs pull"),
    "a page": (b"\n<!DOCTYPE html><html>", ".pt", "it is a web page"),
    "gzip": (b"\x1f\x8b\x08\x00", ".pth", "it is compressed with gzip; unpack it"),
    "half a zip": (b"PK\x03\x04" + bytes(100), ".pth", "whose end is missing"),
    "a zip by another name": (saved({"w": torch.ones(2)}), ".safetensors", "a name that ends in .pth"),
    "safetensors by another name": (b"\x02" + bytes(7) + b"{}", ".pth", "a name that ends in .safetensors"),
    "half a header": (b"\x70" + bytes(7) + b'{"w":', ".safetensors", "whose end is missing"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_a_file_is_instead_of_weights_is_told(tmp_path: Path, library: Any, kind: str) -> None:
    content, suffix, reason = ODD[kind]
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"w\{suffix} is refused.*{reason}") as error:
        library(tmp_path / f"w{suffix}")
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers_are_refused_and_a_mask_that_is_infinite_is_not(
    tmp_path: Path, library: Any
) -> None:
    state = library(None).model.state_dict()
    name = next(name for name in state if name.endswith("mlp.c_fc.bias" if library is clip else "mlp.fc1.bias"))
    for value in (float("nan"), float("-inf")):
        reason = failure(library, state | {name: torch.full_like(state[name], value)}, tmp_path / "w.pt")
        assert reason == f"{tmp_path}/w.pt: {name} has values that are infinite or no numbers; the file is damaged"


def test_half_of_a_deeper_model_is_refused(tmp_path: Path) -> None:
    state = vit(None).model.state_dict()
    deeper = state | {n.replace("blocks.0.", "blocks.31."): t for n, t in state.items() if n.startswith("blocks.0.")}
    assert r"of a deeper model: it has 'blocks.31.norm1.weight'" in failure(vit, deeper, tmp_path / "w.pt")


def test_what_more_than_tensors_a_file_holds_is_named(tmp_path: Path, library: Any) -> None:
    for content, reason in (
        (
            {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": Path("x")},
            r"pathlib\.\w+.*; save the model's state_dict",
        ),
        ({"epoch": 3, "history": [1.0]}, r"holds a dict of \['epoch', 'history'\], not tensors by name"),
        ({"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(2)}}, r"holds a dict of \['a', 'b'\]"),
    ):
        (tmp_path / "w.ckpt").write_bytes(saved(content))
        with pytest.raises(InputError, match=rf"w\.ckpt is refused.*{reason}"):
            library(tmp_path / "w.ckpt")


def timm_folder(folder: Path, **config: Any) -> str:
    folder.mkdir(exist_ok=True)
    weights = {
        "fixed_input_size": True,
        "input_size": [3, 160, 160],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "num_classes": 1000,
    }
    weights |= {"first_conv": "patch_embed.proj", "classifier": "head", "crop_mode": "squash"}
    described = {"architecture": "test_vit", "num_classes": 1000, "pretrained_cfg": weights} | config
    (folder / "config.json").write_text(json.dumps(described))
    return f"local-dir:{folder}"


def test_a_folder_that_timm_saved_is_a_model(tmp_path: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    name = timm_folder(tmp_path / "saved")
    save_file(state, tmp_path / "saved/model.safetensors")

    model = VitClassifier(["a", "b"], (), name=name, pretrained=True)

    assert all(torch.equal(t, state[n]) for n, t in model.model.state_dict().items() if not n.startswith("head."))
    assert (model.preprocess.std, model.preprocess.resize_mode) == ((0.25,) * 3, "squash")
    with pytest.raises(InputError, match=r"std is given for 'local-dir:.*', whose config has mean and std: pass both"):
        VitClassifier(["a", "b"], (), name=name, pretrained=True, std=[0.5] * 3)
    assert model.provenance()["model"] == "local-dir:saved"


def test_a_folder_of_timm_that_is_none_is_one_line(tmp_path: Path) -> None:
    def refusal(folder: str, **config: Any) -> str:
        name = timm_folder(tmp_path / folder, **config)
        with pytest.raises(InputError) as error:
            VitClassifier(["a", "b"], (), name=name, pretrained=True)
        return str(error.value)

    assert "no weights in" in refusal("empty")
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile/pytorch_model.bin").write_bytes(saved({"w": Path("x")}))
    assert "pytorch_model.bin is refused" in refusal("hostile")
    state = timm.create_model("test_vit").state_dict()
    (tmp_path / "half").mkdir()
    save_file({n: t for n, t in state.items() if "blocks.3." not in n}, tmp_path / "half/model.safetensors")
    assert "lacks 12 weights, such as 'blocks.3.norm1.weight'" in refusal("half")
    assert "unknown architecture 'test_vat': did you mean 'test_vit" in refusal("half", architecture="test_vat")
    (tmp_path / "half/config.json").write_text('{"model_type": "clip", "architectures": ["CLIPModel"]}')
    with pytest.raises(InputError, match="no model of timm, but 'clip' of Hugging Face transformers"):
        VitClassifier(["a", "b"], (), name=f"local-dir:{tmp_path}/half", pretrained=True)
    for settings in ({"name": str(tmp_path)}, {"name": "test_vit", "pretrained": str(tmp_path)}):
        with pytest.raises(
            InputError, match=rf"saved is backbone.build.name=local-dir:{tmp_path} with backbone.build.p"
        ):
            VitClassifier(["a", "b"], (), **{"pretrained": True} | settings)
    assert "may not set features_only" in refusal("half", model_args={"features_only": True})
    assert "settings by name" in refusal("half", model_args=[1])
    with pytest.raises(InputError, match=r"no config\.json in"):
        VitClassifier(["a", "b"], (), name=f"local-dir:{tmp_path}", pretrained=True)
    with pytest.raises(InputError, match="brings its own weights"):
        VitClassifier(["a", "b"], (), name=f"local-dir:{tmp_path}", pretrained="x.pt")
    with pytest.raises(InputError, match="unknown model source 'local': did you mean 'local-dir'"):
        VitClassifier(["a", "b"], (), name=f"local:{tmp_path}", pretrained=True)
