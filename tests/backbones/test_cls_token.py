"""The last block for the pooled token alone gives the features and gradients of the whole tower."""

import pytest
import timm
import torch
from backbones_towers import adapted, assert_equal, clip, gradients, randomised

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.backbones.cls_token import clip_first_token, clip_pools_first_token, timm_first_token, timm_pools_first_token

IMAGES = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
KNOWN = {"CLIP": {}, "layer scale": {"ls_init_value": 0.3}, "norm after pooling": {"final_ln_after_pool": True}}
OTHERS = {
    "mean of the tokens": {"pool_type": "avg"},
    "attention pooling": {"attentional_pool": True},
    "tokens returned too": {"output_tokens": True},
    "blocks of another kind": {"qk_norm": True},
    "a single block": {"layers": 1},
    "a residual network": {"layers": [1, 1, 1, 1], "width": 16},
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("settings", KNOWN.values(), ids=KNOWN)
def test_clip_features_and_gradients_are_open_clips(settings, checkpointing):
    model = clip(vision=settings)
    parameters = adapted(model, ("visual.*.attn.qkv", "visual.*.mlp.c_*", "visual.proj")).parameters()
    model.set_grad_checkpointing(checkpointing)
    assert clip_pools_first_token(model.visual)

    actual, expected = clip_first_token(model.visual, IMAGES), model.encode_image(IMAGES)

    assert_equal([actual], [expected])
    assert_equal(gradients(actual, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_another_tower_runs_unchanged(settings):
    assert not clip_pools_first_token(clip(vision=settings).visual)


TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 5}


@pytest.mark.parametrize(
    "settings", [{}, {"init_values": 0.1, "reg_tokens": 4}, {"qk_norm": True, "class_token": True}]
)
def test_timm_features_and_gradients_are_timms(settings):
    torch.manual_seed(0)
    model = randomised(timm.models.vision_transformer.VisionTransformer(**TIMM, **settings)).double()
    parameters = inject(model, KRAdapter, ["blocks.*.attn.qkv", "blocks.*.mlp.fc*"]).parameters()
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    assert timm_pools_first_token(model)

    actual = timm_first_token(model, IMAGES)
    expected = model.forward_head(model.forward_features(IMAGES), pre_logits=True)

    assert_equal([actual], [expected])
    assert_equal(gradients(actual, parameters), gradients(expected, parameters))


def test_other_models_of_timm_run_unchanged():
    others = {"global_pool": "avg"}, {"global_pool": "map"}, {"depth": 1}
    for settings in others:
        assert not timm_pools_first_token(timm.models.vision_transformer.VisionTransformer(**(TIMM | settings)))
    assert not timm_pools_first_token(timm.create_model("resnet10t"))


def test_nothing_is_kept_below_the_first_adapted_layer():
    model = clip()
    inject(model, KRAdapter, ["visual.transformer.resblocks.2.mlp.c_proj"])
    graphs = {}
    for name, module in model.visual.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: graphs.update({name: y}))

    clip_first_token(model.visual, IMAGES)

    trained = {name for name, y in graphs.items() if isinstance(y, torch.Tensor) and y.requires_grad}
    assert trained == {"transformer.resblocks.2.mlp.c_proj", "transformer.resblocks.2.mlp",
                       "transformer.resblocks.2.ls_2", "ln_post"}  # fmt: skip
