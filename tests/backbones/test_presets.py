"""Presets of sites and parameters by structure, on a small model of each family: all that they choose trains."""

from functools import partial
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.sites import find_sites
from kravl.adapters.kra import KRAdapter
from kravl.backbones.structure.blocks import tower_of, towers
from kravl.backbones.structure.presets import (
    PARAMETERS,
    count_sites,
    listed_sites,
    select,
    select_parameters,
    select_roles,
)
from kravl.backbones.structure.roles import Role, roles
from kravl.runtime.errors import InputError

VISION: dict[str, Any] = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT: dict[str, Any] = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
POOLED: dict[str, Any] = {
    "attentional_pool": True,
    "attn_pooler_queries": 4,
    "attn_pooler_heads": 2,
    "output_tokens": True,
}
RESNET: dict[str, Any] = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 64}
# of the others 160, that of timm's test models
PIXELS = {"OpenAI's ResNet": 64, "CoCa": 32, "OpenAI's ViT": 32}
TEXT_SITES = "text 6 (qkv 2, mlp 4)"


def clip(vision: dict[str, Any], text: dict[str, Any] | None = None, kind: Any = open_clip.CustomTextCLIP) -> nn.Module:
    own = vision if "timm_model_name" in vision else VISION | vision
    decoder = {"multimodal_cfg": TEXT} if kind is open_clip.CoCa else {}
    return kind(embed_dim=16, vision_cfg=own, text_cfg=TEXT | (text or {}), **decoder)


def trunk(name: str, pool: str, proj: str | None) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": 160}


EVA = {"depth": 2, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "img_size": 160,
       "patch_size": 16, "embed_dim": 48, "num_heads": 2, "num_classes": 5}  # fmt: skip
# family -> its model, and what `both` adapts in it
FAMILIES = {
    "OpenAI's ViT": (partial(clip, {}, {}, open_clip.CLIP), f"image 6 (qkv 2, mlp 4), {TEXT_SITES}"),
    "OpenAI's ResNet": (
        partial(clip, RESNET, {}, open_clip.CLIP),
        f"image 19 (q 1, k 1, v 1, conv 16), {TEXT_SITES}",
    ),
    "CoCa": (
        partial(clip, POOLED, {"embed_cls": True, "output_tokens": True}, open_clip.CoCa),
        f"image 9 (qkv 2, q 1, k 1, v 1, mlp 4), {TEXT_SITES}",
    ),
    "SigLIP": (
        partial(clip, trunk("test_vit3", "map", "none"), {"no_causal_mask": True, "proj_bias": True}),
        f"image 31 (qkv 9, q 1, kv 1, mlp 20), {TEXT_SITES}",
    ),
    "ConvNeXt CLIP": (
        partial(clip, trunk("test_convnext2", "", "linear")),
        f"image 11 (mlp 8, conv 3), {TEXT_SITES}",
    ),
    "EVA-02": (partial(timm.create_model, "eva02_base_patch16_clip_224", **EVA), "image 12 (q 2, k 2, v 2, mlp 6)"),
    "ResNet": (partial(timm.create_model, "test_resnet"), "image 12 (conv 12)"),
    "NFNet": (partial(timm.create_model, "test_nfnet"), "image 28 (conv 28)"),
    "EfficientNet": (partial(timm.create_model, "test_efficientnet"), "image 12 (conv 12)"),
    "MaxViT": (partial(timm.create_model, "test_maxvit"), "image 43 (qkv 8, mlp 16, conv 19)"),
    "relative positions": (partial(timm.create_model, "test_vit_relpos"), "image 27 (qkv 9, mlp 18)"),
    "MambaOut": (partial(timm.create_model, "test_mambaout"), "image 15 (mlp 12, conv 3)"),
}


def outputs(model: Any, pixels: int) -> Tensor:
    """Logits of two images; or the features of two images and two texts, where there is a tower for them."""
    torch.manual_seed(1)
    images = torch.rand(2, 3, pixels, pixels)
    if not hasattr(model, "encode_text"):
        return model(images)
    tokens = torch.randint(1, TEXT["vocab_size"], (2, TEXT["context_length"]))
    return torch.cat([model.encode_image(images).flatten(), model.encode_text(tokens).flatten()])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_presets_choose_gets_a_gradient_and_merges(family: str) -> None:
    torch.manual_seed(0)
    make, both = FAMILIES[family]
    model, pixels = make().eval(), PIXELS.get(family, 160)
    for parameter in model.parameters():  # such as the last norm of a block: as after some training
        if not parameter.count_nonzero():
            nn.init.constant_(parameter, 0.3)
    assert listed_sites(count_sites(select_roles(roles(model), "both"))) == both
    before = outputs(model, pixels)

    adapters = inject(model, KRAdapter, select(model, "all"))
    # a product has other bits with operands at another place in memory
    torch.testing.assert_close(outputs(model, pixels), before, rtol=0, atol=1e-6 * before.abs().max().item())
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=0.02)
    adapted = outputs(model, pixels)
    (adapted * torch.randn(adapted.shape)).sum().backward()

    assert [name for name, adapter in adapters.adapters.items() if not has_gradient(adapter)] == []
    adapters.merge_and_unload()
    # of float32 in some thirty layers, against sums of up to 600 products in another order
    torch.testing.assert_close(outputs(model, pixels), adapted, rtol=0, atol=2e-5 * adapted.abs().max().item())


def has_gradient(adapter: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.count_nonzero()) for p in adapter.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_of_a_tower_has_a_role(family: str) -> None:
    with torch.device("meta"):
        model = FAMILIES[family][0]()
    of_model, prefixes = roles(model), towers(model)
    names = [role.name for role in of_model]
    shapes = {site.name: tuple(site.weight.shape) for site in find_sites(model) if tower_of(site.name, prefixes)}

    assert len(set(names)) == len(names)
    assert {role.name: role.shape for role in of_model}.items() <= shapes.items()
    # the rows of this model's qkv are not q, k and v, but those of one head after the other
    assert shapes.keys() - set(names) == (thirds(of_model) if family == "MaxViT" else set())


def thirds(of_model: list[Role]) -> set[str]:
    fused = [role.name.removesuffix("qkv") for role in of_model if role.name.endswith(".qkv")]
    return {name + part for name in fused for part in "qkv"}


def test_the_captions_of_coca_are_in_no_tower() -> None:
    model = FAMILIES["CoCa"][0]()
    chosen = {name for preset in PARAMETERS for name in select_parameters(model, preset)}

    assert not any(name.startswith("text_decoder") for name in chosen | set(select(model, "all")))
    outputs(model, 32).sum().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("text_decoder"))


@pytest.mark.parametrize(
    ("family", "preset", "reason"),
    [
        ("ResNet", "text", r"sites=text: the model has no text tower, only its image tower; choose sites=both$"),
        ("ResNet", "cliplora", r"sites=cliplora: the image tower has no queries, keys and values; it is made of "
                               r"12 conv, 3 patch, 1 head; choose vision, both, all, targets=\[\.\.\.\] by name"),
        ("ConvNeXt CLIP", "cliplora", r"the image tower has no queries, .* choose vision, text, both, all, targets="),
        ("OpenAI's ViT", "bothh", r"unknown sites preset 'bothh': did you mean 'both'"),
    ],
)  # fmt: skip
def test_a_preset_that_finds_nothing_in_a_tower_says_what_it_is_made_of(family: str, preset: str, reason: str) -> None:
    with torch.device("meta"):
        model = FAMILIES[family][0]()
    with pytest.raises(InputError, match=reason):
        select(model, preset)


def test_the_last_blocks_of_a_tower_in_stages_are_its_last_ones() -> None:
    with torch.device("meta"):
        models = FAMILIES["OpenAI's ResNet"][0](), timm.create_model("convnext_tiny")
    of_clip, of_timm = (select_parameters(model, "last_two_blocks") for model in models)

    layers = {".".join(name.split(".")[:3]) for name in of_clip if name.startswith("visual.")}
    assert layers == {"visual.layer3.0", "visual.layer4.0"}
    assert {".".join(name.split(".")[:4]) for name in of_timm} == {"stages.3.blocks.1", "stages.3.blocks.2"}


HF = {
    "RobertaModel": ({"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}, "q 2, k 2, v 2, mlp 4"),
    "T5EncoderModel": ({"num_layers": 2, "d_model": 32, "num_heads": 2, "feed_forward_proj": "gated-gelu"},
                       "q 2, k 2, v 2, mlp 6"),
    "M2M100Model": ({"encoder_layers": 2, "d_model": 32, "encoder_attention_heads": 2}, "q 2, k 2, v 2, mlp 4"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HF)
def test_the_towers_of_transformers_have_their_words_for_attention(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings, expected = HF[kind]
    config = getattr(transformers, kind.removesuffix("Model").removesuffix("Encoder") + "Config")(**settings)
    with torch.device("meta"):
        model: Any = clip({})
        tower = getattr(transformers, kind)(config)
        model.text = nn.ModuleDict({"transformer": getattr(tower, "encoder", tower), "proj": nn.Linear(32, 16)})

    chosen = select_roles(roles(model), "text")
    assert listed_sites(count_sites(chosen)) == f"text {len(chosen)} ({expected})"
    assert {role.kind for role in roles(model) if role.tower == "text"} == {"q", "k", "v", "out", "mlp", "projection"}
