"""The heads of a timm model: one, or several whose mean are the logits, as timm has it at inference.

Several heads may read different features (distilled models: two tokens; CrossViT: two branches). The features of an
image are then what all of them read, side by side.
"""

from collections.abc import Callable
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
    if len(parts) == 1 and not _ends_sequence(model, parts[0]):
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


def _ends_sequence(model: Any, head: nn.Module) -> bool:
    """Whether other modules of timm's head run before ``head``, as BatchNorm does, which pre-logits do not include."""
    name = getattr(model, "pretrained_cfg", {}).get("classifier")
    if not isinstance(name, str) or "." not in name:
        return False
    around = getattr(model, name.partition(".")[0], None)
    return isinstance(around, nn.Sequential) and len(around) > 1 and around[-1] is head


def check_single_head(model: Any, images: Tensor) -> None:
    """Whether the modules with weights that kravl runs for the logits of images are those that timm runs.

    Raises:
        ValueError: they are not, so that logits would not be timm's.
    """
    with torch.no_grad():
        own = _run(model, lambda: mean_logits(model, head_inputs(model, images)))
        timms = _run(model, lambda: model(images))
    if own != timms:
        part = next((f"runs {name} for them too" for name in timms if name not in own), "runs them otherwise")
        raise ValueError(f"its logits are not those of its head on its features: timm {part}")


def _run(model: Any, call: Callable[[], object]) -> list[str]:
    """The modules with weights of their own, besides VOLO's head for each patch, in the order that ``call`` runs them.

    Each once: `head_inputs` may run a head for what it reads.
    """
    ran: list[str] = []
    modules = [
        (name, module)
        for name, module in model.named_modules()
        if name and not name.startswith("aux_head") and any(True for _ in module.parameters(recurse=False))
    ]
    hooks = [m.register_forward_pre_hook(lambda *_, name=n: ran.append(name)) for n, m in modules]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(ran))


def mean_logits(model: Any, features: list[Tensor]) -> Tensor:
    """Logits (n, classes): the mean over the heads, each of its own features (n, d)."""
    logits = [_scores(head, x) for head, x in zip(heads(model), features, strict=True)]
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)


def _scores(head: nn.Module, features: Tensor) -> Tensor:
    if isinstance(head, nn.Conv2d):  # a linear map of features that are an image of one pixel
        return head(features[:, :, None, None]).flatten(1)
    return head(features)
