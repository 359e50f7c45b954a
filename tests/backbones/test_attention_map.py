"""A map is the attention that the library's own modules compute, in the pass that scores the image."""

import pytest
import timm
import torch
from backbones_towers import adapted, clip, randomised
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from kravl.backbones.attention_map import attention_map
from kravl.backbones.cls_token import clip_first_token, timm_first_token

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 5}
NONE = {
    "mean of the tokens": clip(vision={"pool_type": "avg"}).visual,
    "a residual network": clip(vision={"layers": [1, 1, 1, 1], "width": 16}).visual,
    "mean of the patches": VisionTransformer(**TIMM, global_pool="avg"),
    "another family": timm.create_model("test_resnet"),
}


def recorded(tower: nn.Module, run) -> Tensor:
    found = attention_map(tower)
    assert found is not None
    with found.recorded() as maps, torch.no_grad():
        run(IMAGES)
    run(IMAGES)  # which nobody records
    (only,) = maps
    assert only.dtype == torch.float32 and only.min() >= 0 and only.sum((1, 2)).max() <= 1 + 1e-6
    return only


def manually(modules, run) -> Tensor:
    """What timm gives to the dropout of attention, where it computes attention in steps; mean over heads."""
    seen: list[Tensor] = []
    *_, last = modules
    last.fused_attn = False
    handle = last.attn_drop.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        run(IMAGES)
    handle.remove()
    return seen[-1].mean(1)


@pytest.mark.parametrize("adapt", [False, True])
def test_clips_class_token_attends_as_torch_says(adapt: bool) -> None:
    model = clip()
    if adapt:
        adapted(model, ("visual.*.attn.qkv",))
    tower = model.visual
    last, seen = tower.transformer.resblocks[-1], []
    handle = last.ln_1.register_forward_hook(lambda module, given, x: seen.append(x))
    with torch.no_grad():
        tower(IMAGES)
        handle.remove()
        expected = last.attn(seen[0], seen[0], seen[0], need_weights=True)[1][:, 0, 1:].reshape(2, 4, 4)

    for run in (tower, lambda images: clip_first_token(tower, images)):
        torch.testing.assert_close(recorded(tower, run), expected.float())


def test_cocas_first_query_attends_as_torch_says() -> None:
    tower = clip(vision={"attentional_pool": True, "attn_pooler_heads": 4}).visual
    pool, seen = tower.attn_pool, []
    handle = pool.attn.register_forward_pre_hook(lambda module, given: seen.append(given))
    actual = recorded(tower, tower)
    handle.remove()

    with torch.no_grad():
        expected = pool.attn(*seen[0], need_weights=True)[1][:, 0, 1:].reshape(2, 4, 4)
    torch.testing.assert_close(actual, expected.float())


@pytest.mark.parametrize("settings", [{}, {"reg_tokens": 4}, {"qk_norm": True}])
def test_timms_class_token_attends_as_timm_says(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = randomised(VisionTransformer(**TIMM, **settings)).double().eval()
    actual = [recorded(model, run) for run in (model, lambda images: timm_first_token(model, images))]

    expected = manually((block.attn for block in model.blocks), model)[:, 0, -16:].reshape(2, 4, 4).float()

    for each in actual:
        torch.testing.assert_close(each, expected)


def test_the_query_of_timms_attention_pooling_attends_as_its_output_says() -> None:
    torch.manual_seed(0)
    model = randomised(VisionTransformer(**TIMM, global_pool="map", class_token=False)).double().eval()
    pool = model.attn_pool = AttentionPoolLatent(48, num_heads=1, out_features=0).double()
    seen: list[Tensor] = []
    pool.register_forward_hook(lambda module, given, out: seen.extend((given[0], out)))

    actual = recorded(model, model)

    with torch.no_grad():
        values = pool.kv(seen[0])[..., 48:]
    torch.testing.assert_close((actual.flatten(1)[:, None].double() @ values)[:, 0], seen[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tower", NONE.values(), ids=NONE)
def test_a_tower_that_pools_otherwise_has_none(tower: nn.Module) -> None:
    assert attention_map(tower) is None
