"""Names and shapes of the weight matrices of real architectures, and patterns over them."""

import open_clip
import pytest
import timm
import torch
from open_clip.transformer import Attention
from torch import nn

from kravl.adapters.injection.sites import find_sites, select_sites
from kravl.runtime.errors import InputError


def shapes(model):
    return {site.name: tuple(site.weight.shape) for site in find_sites(model)}


def test_clip_has_packed_attention_mlp_and_bare_projections(clip):
    block = "visual.transformer.resblocks.0"

    sites = shapes(clip)

    assert {name: shape for name, shape in sites.items() if name.startswith(block)} == {
        f"{block}.attn.qkv": (96, 32),
        f"{block}.attn.q": (32, 32),
        f"{block}.attn.k": (32, 32),
        f"{block}.attn.v": (32, 32),
        f"{block}.attn.out_proj": (32, 32),
        f"{block}.mlp.c_fc": (128, 32),
        f"{block}.mlp.c_proj": (32, 128),
    }
    assert sites["visual.proj"] == (32, 16)
    assert sites["text_projection"] == (32, 16)
    assert sites["visual.conv1"] == (32, 3 * 16 * 16)
    assert not [name for name in sites if "embedding" in name]


def test_the_parts_of_a_fused_weight_are_its_rows_in_order(clip):
    sites = {site.name: site for site in find_sites(clip)}
    prefix = "transformer.resblocks.1.attn"

    parts = torch.cat([sites[f"{prefix}.{part}"].weight for part in "qkv"])

    assert torch.equal(parts, clip.transformer.resblocks[1].attn.in_proj_weight)
    assert torch.equal(parts, sites[f"{prefix}.qkv"].weight)


def test_timm_has_a_fused_qkv_that_reads_two_ways(vit):
    sites = shapes(vit)

    assert sites["blocks.1.attn.qkv"] == (144, 48)
    assert sites["blocks.1.attn.v"] == (48, 48)
    assert sites["head"] == (5, 48)
    assert "blocks.1.attn.qkv.weight" not in sites


def test_separate_attention_weights_are_sites_by_their_parameter_names():
    sites = shapes(nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, kdim=6, vdim=4)}))

    assert sites == {
        "attn.q_proj_weight": (8, 8),
        "attn.k_proj_weight": (8, 6),
        "attn.v_proj_weight": (8, 4),
        "attn.out_proj": (8, 8),
    }


def test_open_clips_own_attention_has_the_names_of_torchs():
    open_clips, torchs = Attention(8, 2), nn.MultiheadAttention(8, 2)

    assert shapes(nn.ModuleDict({"attn": open_clips})) == shapes(nn.ModuleDict({"attn": torchs}))


def test_a_resnet_tower_offers_its_convolutions_and_its_attention_pool():
    vision = open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32)
    model = open_clip.model._build_vision_tower(16, vision)

    sites = shapes(model)

    assert {name for name in sites if "conv" not in name and "downsample" not in name} == {
        f"attnpool.{part}_proj" for part in "qkvc"
    }
    assert sites["conv1"] == (4, 3 * 3 * 3)
    assert {name: shape for name, shape in sites.items() if name.startswith("layer2")} == {
        "layer2.0.conv1": (16, 32),
        "layer2.0.conv2": (16, 16 * 3 * 3),
        "layer2.0.conv3": (64, 16),
        "layer2.0.downsample.0": (64, 32),
    }


def test_a_convolution_is_its_unfolded_kernel_whatever_its_name_and_groups():
    model = nn.ModuleDict({
        "sound": nn.Conv1d(4, 6, 5), "video": nn.Conv3d(2, 6, (1, 2, 3)), "qkv": nn.Conv2d(4, 12, 1),
        "grouped": nn.Conv2d(4, 6, (3, 1), groups=2), "scaled": timm.layers.ScaledStdConv2d(4, 6, 3),
        "up": nn.ConvTranspose2d(4, 6, 3), "normed": nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
    })  # fmt: skip

    assert shapes(model) == {
        "sound": (6, 20), "video": (6, 12), "qkv": (12, 4), "grouped": (6, 6), "scaled": (6, 36)
    }  # fmt: skip
    assert torch.equal(
        dict(model["grouped"].named_parameters())["weight"].flatten(1), select_sites(model, ["grouped"])[0].weight
    )


def test_separate_timm_projections_are_plain_linear_sites():
    model = timm.models.eva.Eva(
        img_size=32,
        patch_size=16,
        embed_dim=24,
        depth=1,
        num_heads=2,
        num_classes=0,
        qkv_fused=False,
        use_rot_pos_emb=True,
    )

    assert {"blocks.0.attn.q_proj", "blocks.0.attn.k_proj", "blocks.0.attn.v_proj"} <= set(shapes(model))


def test_a_module_that_is_itself_a_matrix_has_a_name():
    assert shapes(nn.Linear(3, 4)) == {"weight": (4, 3)}
    assert set(shapes(nn.MultiheadAttention(4, 2))) == {"qkv", "q", "k", "v", "out_proj"}


def test_a_fused_weight_that_is_not_three_parts_is_only_read_whole():
    assert shapes(nn.ModuleDict({"qkv": nn.Linear(4, 10)})) == {"qkv": (10, 4)}


def test_patterns_are_shell_globs(clip):
    selected = [site.name for site in select_sites(clip, ["visual.*.[01].attn.[qv]", "text_projection"])]

    prefix = "visual.transformer.resblocks"
    expected = [f"{prefix}.{i}.attn.{part}" for i in range(2) for part in "qv"]
    assert sorted(selected) == sorted(["text_projection", *expected])


def test_a_pattern_that_matches_nothing_names_the_nearest(vit):
    with pytest.raises(InputError, match=r"'blocks.\*.attn.query' matches no weight matrix; .*'blocks.0.attn.q"):
        select_sites(vit, ["head", "blocks.*.attn.query"])


@pytest.mark.parametrize("targets", [["blocks.*.attn.qkv", "blocks.0.attn.q"], ["blocks.*.attn.*"]])
def test_a_fused_weight_and_its_part_are_not_adapted_both(vit, targets):
    with pytest.raises(InputError, match=r"'blocks.0.attn.q' is adapted twice: .* 'blocks.0.attn.qkv'"):
        select_sites(vit, targets)


def test_patterns_may_overlap_as_long_as_sites_do_not(vit):
    selected = select_sites(vit, ["blocks.*.attn.q", "blocks.0.*.q", "blocks.0.attn.k"])

    assert [site.name for site in selected] == ["blocks.0.attn.q", "blocks.0.attn.k", "blocks.1.attn.q"]


def test_a_shared_weight_is_one_site_under_its_first_name():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight

    assert [site.name for site in select_sites(model, ["*"])] == ["a"]
    assert [site.name for site in select_sites(model, ["b"])] == ["b"]
