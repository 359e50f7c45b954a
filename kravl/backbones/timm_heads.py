"""The heads of a timm model: one, or several whose mean are the logits, as timm has it at inference.

Several heads may read different features (distilled models: two tokens; CrossViT: two branches). The features of an
image are then what all of them read, side by side.
"""

from typing import Any

import torch
from timm.layers import ClassifierHead, NormMlpClassifierHead
from torch import Tensor, nn

from kravl.runtime.errors import InputError


def heads(model: Any) -> list[nn.Module]:
    """The modules that compute logits, each from features (n, d)."""
    classifier = model.get_classifier()
    parts = list(classifier) if isinstance(classifier, tuple | list | nn.ModuleList) else [classifier]
    return [part.fc if isinstance(part, ClassifierHead | NormMlpClassifierHead) else part for part in parts]


def final_layers(model: Any) -> list[nn.Module]:
    """The linear maps of the heads whose outputs are the logits."""
    layers = [module for head in heads(model) for module in head.modules()]
    return [m for m in layers if model.num_classes in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]


def head_inputs(model: Any, images: Tensor) -> list[Tensor]:
    """What each head reads of images (n, 3, h, w): features (n, d)."""
    parts = heads(model)
    if len(parts) == 1:
        return [model.forward_head(model.forward_features(images), pre_logits=True)]
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [part.register_forward_pre_hook(lambda head, args: inputs.update({head: args[0]})) for part in parts]
    try:
        model.forward_head(model.forward_features(images))
    finally:
        for hook in hooks:
            hook.remove()
    if len(inputs) < len(parts):
        raise InputError(f"{len(parts) - len(inputs)} of its {len(parts)} heads do not run")
    return [inputs[part] for part in parts]


def mean_logits(model: Any, features: list[Tensor]) -> Tensor:
    """Logits (n, classes): the mean over the heads, each of its own features (n, d)."""
    logits = [_scores(head, x) for head, x in zip(heads(model), features, strict=True)]
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)


def _scores(head: nn.Module, features: Tensor) -> Tensor:
    if isinstance(head, nn.Conv2d):  # a linear map of features that are an image of one pixel
        return head(features[:, :, None, None]).flatten(1)
    return head(features)
