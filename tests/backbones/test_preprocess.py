"""Pixels are those of open_clip's and timm's own transforms, for all of their published weights."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from kravl.backbones.preprocess import (
    Preprocess,
    Stated,
    clip_candidates,
    clip_preprocess,
    timm_candidates,
    timm_preprocess,
)
from kravl.data.loading.transforms import CentreCrop, Normalization
from kravl.runtime.errors import InputError

Transform = Callable[[Image.Image], Tensor]
RNG = np.random.default_rng(0)
WIDE, TALL, SQUARE = (
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((21, 34), (35, 19), (24, 24))
)
CLIP = {"mode": "RGB", "fill_color": 7, "interpolation": "bilinear", "size": (30, 44)}
TIMM = {"input_size": (3, 20, 30), "crop_pct": 0.9, "mean": (0.1, 0.5, 0.9), "std": (0.5,) * 3}


def open_clips(config: dict[str, Any]) -> tuple[Preprocess, Transform]:
    settings = open_clip.transform.PreprocessCfg(**config)
    return clip_preprocess(vars(settings)), open_clip.transform.image_transform_v2(settings, is_train=False)


def timms(config: dict[str, Any]) -> tuple[Preprocess, Transform]:
    settings = timm.data.resolve_data_config({}, pretrained_cfg=config)
    return timm_preprocess(config, {}), timm.data.create_transform(**settings)


def published() -> Iterator[tuple[Preprocess, Transform]]:
    for name, tag in open_clip.list_pretrained():
        size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
        defaults = open_clip.transform.PreprocessCfg(size=size)
        yield open_clips(open_clip.transform.merge_preprocess_dict(defaults, open_clip.get_pretrained_cfg(name, tag)))
    for name in timm.list_pretrained():
        yield timms(timm.get_pretrained_cfg(name).to_dict())


def assert_same_pixels(preprocess: Preprocess, theirs: Transform) -> None:
    crop, normalize = CentreCrop.of(preprocess), Normalization(preprocess.mean, preprocess.std)
    for image in (WIDE, TALL, SQUARE):
        assert torch.equal(normalize([crop(image).transpose(2, 0, 1)])[0], theirs(image)), preprocess


def test_pixels_of_all_published_weights_are_those_of_their_library() -> None:
    seen: set[object] = set()
    count = 0
    for preprocess, theirs in published():
        count += 1
        # each resizing and each normalisation once per library: a pixel's place and its value do not mix
        library = type(theirs.transforms[-2]).__module__
        parts = {
            (library, replace(preprocess, mean=(0,) * 3, std=(1,) * 3)),
            (library, preprocess.mean, preprocess.std),
        }
        if not parts <= seen:
            seen |= parts
            assert_same_pixels(preprocess, theirs)
    assert count > 1900


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [30, (30, 44), (44, 30)])
def test_what_no_published_weights_ask_for_has_open_clips_pixels_too(mode: str, size: object) -> None:
    for interpolation in ("bicubic", "bilinear", "random"):
        assert_same_pixels(*open_clips(CLIP | {"resize_mode": mode, "size": size, "interpolation": interpolation}))


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
@pytest.mark.parametrize("crop_pct", [0.6, 1.0, 1.2])
def test_what_no_published_weights_ask_for_has_timms_pixels_too(mode: str, crop_pct: float) -> None:
    for interpolation in ("lanczos", "nearest", "bilinear"):
        further = {"crop_mode": mode, "crop_pct": crop_pct, "interpolation": interpolation}
        assert_same_pixels(*timms(TIMM | further))
        assert_same_pixels(*timms(TIMM | further | {"input_size": (3, 28, 28)}))


def test_what_all_published_weights_of_a_model_expect_is_expected_of_a_file() -> None:
    settings = Stated().complete(clip_candidates("MobileCLIP-S1"), "MobileCLIP-S1")

    assert settings == {"mean": (0,) * 3, "std": (1,) * 3, "interpolation": "bilinear", "resize_mode": "shortest"}


def test_where_published_weights_disagree_the_user_is_asked_and_what_is_said_counts() -> None:
    candidates, name = clip_candidates("ViT-L-14"), "ViT-L-14"
    with pytest.raises(InputError, match=r"mean=\[0\.5,0\.5,0\.5\] .*std=\[0\.5,0\.5,0\.5\] \(as laion2b_s32b_b82k\)"):
        Stated().complete(candidates, name)
    with pytest.raises(InputError, match=r"pass [^\[]*: backbone\.build\.std=\[0\.26") as error:
        Stated(mean=[0.5] * 3).complete(candidates, name)
    assert "build.mean" not in str(error.value)
    assert "interpolation" not in str(error.value)

    settings = Stated(mean=[0.5] * 3, std=[0.2, 0.3, 0.4]).complete(candidates, name)

    assert settings["std"] == (0.2, 0.3, 0.4)
    assert settings["resize_mode"] == "shortest"


@pytest.mark.parametrize(("said", "missing"), [("mean", "std"), ("std", "mean")])
def test_a_mean_without_its_std_is_not_completed_from_other_weights(said: str, missing: str) -> None:
    candidates = {"mae": timm_candidates("vit_base_patch16_224")["mae"]}
    reason = (
        rf"{said}=\[0.1,0.2,0.3\] is that of no published weights of vit.mae, .*: pass backbone.build.{missing}=\[R"
    )
    for published in (candidates, {}):
        with pytest.raises(InputError, match=reason):
            Stated(**{said: [0.1, 0.2, 0.3]}).complete(published, "vit.mae")

    assert Stated(**{said: candidates["mae"][said]}).complete(candidates, "vit.mae") == candidates["mae"]


def test_a_timm_tag_says_what_its_architecture_leaves_open() -> None:
    candidates = timm_candidates("vit_base_patch16_224")
    assert {"mae", "augreg_in21k", "dino"} <= candidates.keys()
    assert candidates["mae"]["mean"] == (0.485, 0.456, 0.406)
    with pytest.raises(InputError, match=r"as augreg2?_in21k.*or .*backbone\.build\.mean=\[0\.485,0\.456,0\.406\]"):
        Stated().complete(candidates, "vit_base_patch16_224")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mean": [123.7, 116.3, 103.5]}, r"mean=\[123\.7,116\.3,103\.5\] is not three numbers from 0 to 1"),
        ({"mean": [0.5]}, r"mean=\[0\.5\] is not three numbers"),
        ({"std": [0.5, 0, 0.5]}, r"std=.* is not three numbers above 0"),
        ({"std": [0.5, float("nan"), 0.5]}, r"std=.* is not three numbers"),
        ({"interpolation": "bicubc"}, "unknown interpolation 'bicubc': did you mean 'bicubic'"),
        ({"resize_mode": "center"}, r"unknown resize_mode 'center': did you mean .* \(longest, shortest, squash\)"),
    ],
)
def test_what_no_image_can_be_prepared_with_is_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Stated(**settings)


@pytest.mark.parametrize("size", [0, -3, 22.4, "224", (224, 0)])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="a size is a whole number of at least 1"):
        clip_preprocess(vars(open_clip.transform.PreprocessCfg(size=size)))
