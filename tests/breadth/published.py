"""The published weights of a model of open_clip or timm, grouped by what they expect of an image."""

import json
from collections.abc import Mapping
from typing import Any

import open_clip
import timm

from kravl.backbones.preprocess import clip_preprocess, timm_preprocess

Group = dict[str, Any]


def clip_weights(name: str, size: Any) -> list[Group]:
    """Those of an open_clip model of this image size."""
    merge = open_clip.transform.merge_preprocess_dict
    own = merge(open_clip.transform.PreprocessCfg(), {"size": size})
    published = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    return _grouped(
        {
            tag: clip_preprocess(merge(dict(own), {**config, "size": size})).recorded()
            for tag, config in published.items()
        },
        clip_preprocess(own).recorded(),
    )


def timm_weights(name: str, model: Any) -> list[Group]:
    """Those of timm."""
    published = {}
    for full in timm.list_pretrained(f"{name}.*") or timm.list_pretrained(name):
        config = timm.get_pretrained_cfg(full)
        if config is not None:
            tag = full.partition(".")[2]
            published[tag] = timm_preprocess(config.to_dict(), {}).recorded()
    return _grouped(published, timm_preprocess(model.pretrained_cfg, {}).recorded())


def _grouped(published: Mapping[str, Group], own: Group) -> list[Group]:
    """What is expected of an image, each with the tags that do; the model's own where nothing is published."""
    groups: dict[str, list[str]] = {}
    for tag, settings in published.items():
        groups.setdefault(json.dumps(settings), []).append(tag)
    return [{**json.loads(settings), "tags": tags} for settings, tags in groups.items()] or [{**own, "tags": []}]
