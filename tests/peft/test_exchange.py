"""Adapters go from kravl to PEFT and back with equal outputs, on transformers' CLIP, open_clip's and a timm ViT."""

import copy
import json
from functools import partial

import open_clip
import pytest
import timm
import torch
from peft import LoraConfig, PeftModel, VeraConfig, get_peft_model
from peft_models import Attention
from torch import nn
from transformers import CLIPConfig, CLIPModel

from kravl import KRAdapter, LoRA, RandLoRA, SinLoRA, inject, load_adapters, save_adapters
from kravl.backbones.weights.hf_clip import renamed
from kravl.peft import KRAdapterConfig, load_from_peft, save_for_peft
from kravl.peft.clip_names import open_clip_to_hugging_face
from kravl.runtime.errors import InputError

METHODS = {
    "kra": partial(KRAdapter, scale=1.5, split="long"),
    "lora": partial(LoRA, rank=3, alpha=6),
    "rslora": partial(LoRA, rank=4, alpha=2, rank_stabilised=True),
    "sinlora": partial(SinLoRA, rank=3, alpha=3, omega=5.0),
}
HF_SITES = ["*self_attn.[qkv]_proj", "*mlp.fc*", "visual_projection"]
IMAGES, WORDS = torch.rand(2, 3, 16, 16), torch.tensor([[1, 5, 9, 63, 0, 0], [1, 4, 63, 0, 0, 0]])


def clip() -> CLIPModel:
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = text | {
        "hidden_size": 24,
        "intermediate_size": 96,
        "image_size": 16,
        "patch_size": 8,
        "hidden_act": "gelu",
    }
    tokens = {"vocab_size": 64, "max_position_embeddings": 6, "bos_token_id": 1, "eos_token_id": 63, "pad_token_id": 0}
    config = CLIPConfig(text_config=text | tokens | {"hidden_act": "gelu"}, vision_config=vision, projection_dim=8)
    return CLIPModel(config).eval()


def open_clip_of(model: CLIPModel) -> open_clip.CLIP:
    """The same model in open_clip."""
    vision = {"layers": 2, "width": 24, "head_width": 12, "image_size": 16, "patch_size": 8}
    text = {"context_length": 6, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
    same = open_clip.CLIP(8, vision, text).eval()
    same.load_state_dict(renamed(model.state_dict()), strict=False)
    return same


def perturb(adapters):
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return adapters


@torch.no_grad()
def outputs(model) -> torch.Tensor:
    mask = torch.ones_like(WORDS)
    return model(input_ids=WORDS, attention_mask=mask, pixel_values=IMAGES).logits_per_image


@pytest.mark.filterwarnings("ignore:Could not find a config file in some/clip")
@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_of_transformers_clip_goes_to_peft_and_back(method, tmp_path):
    model, plain = clip(), clip()
    adapters = perturb(inject(model, METHODS[method], HF_SITES))
    save_adapters(adapters, tmp_path / "adapter.safetensors")
    save_for_peft(tmp_path / "adapter.safetensors", plain, tmp_path / "peft", base_model="some/clip")

    loaded = PeftModel.from_pretrained(plain, tmp_path / "peft").eval()

    assert not torch.allclose(outputs(model), outputs(clip()), atol=1e-3)
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["base_model_name_or_path"] == "some/clip"

    loaded.save_pretrained(tmp_path / "again")
    back = clip()
    returned = load_from_peft(back, tmp_path / "again")
    assert torch.equal(outputs(back), outputs(model))
    save_adapters(returned, tmp_path / "returned.safetensors")
    assert (tmp_path / "returned.safetensors").read_bytes() == (tmp_path / "adapter.safetensors").read_bytes()


@pytest.mark.parametrize(
    "config", [KRAdapterConfig(target_modules="all-linear"), LoraConfig(r=3, target_modules=["fc1"])]
)
def test_an_adapter_that_peft_trained_becomes_kravls(config, tmp_path):
    model = get_peft_model(clip(), config)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        mask = torch.ones_like(WORDS)
        model(input_ids=WORDS, attention_mask=mask, pixel_values=IMAGES, return_loss=True).loss.backward()
        optimiser.step()
    model.eval().save_pretrained(tmp_path)
    plain = clip()

    adapters = load_from_peft(plain, tmp_path)

    torch.testing.assert_close(outputs(plain), outputs(model), rtol=1e-5, atol=1e-5)
    assert adapters.num_trainable() == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "config",
    [
        KRAdapterConfig(target_modules="all-linear", scale=1.5, init_weights=False),
        LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False),
    ],
)
def test_an_adapter_that_peft_trained_on_transformers_clip_goes_to_open_clip(config, tmp_path):
    hf = clip()
    model = open_clip_of(hf)
    peft = get_peft_model(hf, config).eval()
    peft.save_pretrained(tmp_path / "peft")

    adapters = load_from_peft(model, tmp_path / "peft", open_clip_to_hugging_face)

    with torch.no_grad():
        images, words, scale = model(IMAGES, WORDS)
    assert not torch.allclose(outputs(clip()), outputs(peft), atol=1e-3)
    torch.testing.assert_close(scale * images @ words.T, outputs(peft), rtol=1e-4, atol=1e-4)
    assert adapters.num_trainable() == sum(p.numel() for p in peft.parameters() if p.requires_grad)
    save_adapters(adapters, tmp_path / "adapter.safetensors")
    save_for_peft(tmp_path / "adapter.safetensors", clip(), tmp_path / "again", open_clip_to_hugging_face)
    again = PeftModel.from_pretrained(clip(), tmp_path / "again").eval()
    assert torch.equal(outputs(again), outputs(peft))


@pytest.mark.parametrize(
    ("method", "sites"),
    [
        ("kra", ["*.attn.[qkv]", "*.attn.out_proj", "*.mlp.c_*", "visual.proj", "text_projection"]),
        ("lora", ["*.attn.qkv", "*.attn.out_proj", "*.mlp.c_*", "visual.proj", "text_projection"]),
    ],
)
def test_a_run_on_open_clip_goes_to_transformers_clip(method, sites, tmp_path):
    hf = clip()
    model = open_clip_of(hf)
    adapters = perturb(inject(model, METHODS[method], sites))
    save_adapters(adapters, tmp_path / "adapter.safetensors", {"classes": ["a", "b"]})

    save_for_peft(tmp_path / "adapter.safetensors", hf, tmp_path / "peft", open_clip_to_hugging_face)

    loaded = PeftModel.from_pretrained(hf, tmp_path / "peft").eval()
    with torch.no_grad():
        images, words, scale = model(IMAGES, WORDS)
    expected = scale * images @ words.T
    assert not torch.allclose(outputs(clip()), expected, atol=1e-3)
    torch.testing.assert_close(outputs(loaded), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sites", [["attn.qkv"], ["attn.qkv", "attn.out_proj"], ["attn.out_proj"]])
def test_packed_attention_keeps_its_packed_update(sites, tmp_path):
    model, x = Attention().eval(), torch.randn(2, 5, 12)
    plain = copy.deepcopy(model)
    adapters = perturb(inject(model, METHODS["kra"], sites))
    save_for_peft(adapters, plain, tmp_path)

    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path).eval()

    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))
        assert sorted(load_from_peft(plain, tmp_path).adapters) == sorted(sites)
        torch.testing.assert_close(plain(x), model(x))


def test_a_fused_qkv_of_timm_and_a_new_head_go_both_ways(tmp_path):
    def vit():
        torch.manual_seed(0)
        return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, num_classes=5, img_size=32)

    model, x = vit().eval(), torch.rand(1, 3, 32, 32)
    adapters = perturb(inject(model, METHODS["kra"], ["blocks.*.attn.qkv", "blocks.*.mlp.fc*"], unfreeze=["head.*"]))
    save_for_peft(adapters, vit(), tmp_path)

    loaded = PeftModel.from_pretrained(vit(), tmp_path).eval()

    assert loaded.peft_config["default"].modules_to_save == ["head"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))
    back = vit().eval()
    load_from_peft(back, tmp_path)
    with torch.no_grad():
        assert torch.equal(back(x), model(x))


def test_a_convolution_goes_both_ways_and_a_lora_on_it_is_refused(tmp_path):
    model, x = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2)), torch.randn(2, 4, 5, 5)
    plain = copy.deepcopy(model)
    adapters = perturb(inject(model, METHODS["kra"], ["0"]))
    save_for_peft(adapters, plain, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path)
    load_from_peft(plain, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))
        torch.testing.assert_close(plain(x), model(x))

    base = nn.Sequential(nn.Conv2d(4, 6, 3))
    with pytest.raises(InputError, match="is a convolution, for which PEFT's LoRA has factors of other shapes"):
        save_for_peft(inject(base, METHODS["lora"], ["0"]), base, tmp_path)


def test_what_cannot_go_to_peft_is_told_and_nothing_is_written(tmp_path):
    hf = clip()
    model = open_clip_of(hf)
    fused = inject(model, METHODS["kra"], ["*.attn.qkv"])
    other = copy.deepcopy(hf)
    with torch.no_grad():
        other.vision_model.encoder.layers[0].mlp.fc1.weight[0, 0] += 1e-3
    linear = [nn.Sequential(nn.Linear(6, 6)) for _ in range(4)]
    norm = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    attention = Attention()
    merged = inject(linear[2], METHODS["kra"], ["0"])
    merged.merge()
    refused = [
        (fused, hf, open_clip_to_hugging_face, "goes to .*q_proj' as a third of its rows, which no KRADAPTER is"),
        (inject(clip(), METHODS["kra"], ["*fc*"]), other, None, "trained on other base weights than the model's"),
        (inject(linear[0], partial(RandLoRA, rank=2, alpha=2), ["0"]), linear[0], None, "PEFT has no method for"),
        (
            inject(linear[1], METHODS["kra"], ["0"]),
            nn.Sequential(nn.Linear(6, 4)),
            None,
            "site '0' was 6x6; in the model",
        ),
        (inject(linear[3], METHODS["kra"], ["0"]), nn.Sequential(nn.ReLU()), None, "no layer '0' for site '0'"),
        (inject(norm, METHODS["kra"], ["0"], unfreeze=["1.bias"]), norm, None, "of '1' 1.weight did not train"),
        (inject(attention, METHODS["kra"], ["attn.q"]), attention, None, "cannot adapt 'attn.q' alone"),
        (merged, linear[2], None, "merged"),
        (inject(nn.Sequential(nn.Linear(2, 2)), METHODS["kra"], []), linear[0], None, "no adapters to save"),
        (tmp_path / "nowhere", hf, None, "cannot be read as an adapter file"),
    ]
    for source, base, places, told in refused:
        with pytest.raises(InputError, match=told) as error:
            save_for_peft(source, base, tmp_path / "out", **({"places": places} if places else {}))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_kravl_cannot_read_is_told_and_the_model_is_left_alone(tmp_path):
    def plain():
        return nn.Sequential(nn.Linear(6, 6), nn.Embedding(6, 6))

    for config, told in [
        (LoraConfig(target_modules=["0"], use_dora=True), "kravl's LoRA has no use_dora"),
        (LoraConfig(target_modules=["0"], bias="all"), "kravl's LoRA has no bias"),
        (VeraConfig(target_modules=["0"]), "cannot read adapters of PEFT's VERA"),
        (KRAdapterConfig(target_modules=["0"], weights=[1.0, 2.0]), "a weighted sum of adapters"),
        (LoraConfig(target_modules=["1"]), "no parameter '1.lora_embedding_A'"),
        (KRAdapterConfig(target_modules=["1"]), "target '1' matches no weight matrix"),
    ]:
        get_peft_model(plain(), config).save_pretrained(tmp_path)
        model = plain()
        with pytest.raises(InputError, match=told):
            load_from_peft(model, tmp_path)
        assert [type(module) for module in model] == [nn.Linear, nn.Embedding]
    get_peft_model(plain(), KRAdapterConfig(target_modules=["0"])).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"does not fit 0 \(8x6\)"):
        load_from_peft(nn.Sequential(nn.Linear(6, 8)), tmp_path)
    with pytest.raises(
        InputError, match="the model has no site for '0', which the adapter is on; the nearest are text"
    ):
        load_from_peft(open_clip_of(clip()), tmp_path, open_clip_to_hugging_face)


def test_a_file_of_an_adapter_that_was_exchanged_loads_as_any_other(tmp_path):
    model = clip()
    get_peft_model(model, KRAdapterConfig(target_modules=["fc1"], init_weights=False)).save_pretrained(tmp_path)
    adapters = load_from_peft(clip(), tmp_path)
    save_adapters(adapters, tmp_path / "adapter.safetensors")
    fresh = inject(clip(), KRAdapter, ["*.fc1"])
    load_adapters(fresh, tmp_path / "adapter.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), adapters.parameters(), strict=True))
