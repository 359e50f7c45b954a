"""Any timm vision transformer with a linear head (https://github.com/huggingface/pytorch-image-models)."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from kravl.backbones.classifier import Classifier
from kravl.backbones.cls_token import timm_first_token, timm_pools_first_token
from kravl.backbones.preprocess import Stated, timm_candidates, timm_preprocess, timm_settings
from kravl.backbones.weights import INSTEAD, LOAD_ERRORS, check_weights, require_hub_file
from kravl.runtime.errors import InputError, first_line, unknown


class VitClassifier(Classifier):
    """A timm model whose new head starts at zero, so that adaptation starts without a preference for any class.

    Args:
        class_names: C names, the head's rows.
        templates: unused; every backbone takes the same first two arguments.
        name: a timm model (``vit_small_patch14_dinov2``).
        pretrained: True for timm's own weights, the path of a checkpoint, or False for random weights.
        image_size: pixels, if not the model's own; position embeddings are interpolated.
        mean: of the RGB channels in [0, 1], with which a checkpoint at a path was trained; None where timm knows it,
            as it does where ``name`` has a tag (``vit_base_patch16_224.mae``) or all tags of the model agree.
        std: likewise.
        interpolation: likewise, as ``bicubic``.
        resize_mode: likewise, ``shortest`` (the centre of an image), ``longest`` (all of it, padded) or ``squash``.

    Raises:
        InputError: unknown model, no linear head, unusable checkpoint, or weights that cannot be downloaded.
    """

    zero_shot = False

    def __init__(  # noqa: PLR0913 (each is a setting of backbone.build)
        self,
        class_names: Sequence[str],
        templates: Sequence[str],
        *,
        name: str,
        pretrained: bool | str,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str | None = None,
        resize_mode: str | None = None,
    ) -> None:
        super().__init__(class_names)
        architecture = name.split(".")[0]
        if architecture not in timm.list_models():
            raise unknown("timm model", name, timm.list_models("*vit*") or timm.list_models())
        expected = _expected(name, pretrained, Stated(mean, std, interpolation, resize_mode))
        settings = _weights(name, pretrained) | ({} if image_size is None else {"img_size": image_size})
        try:
            self.model: Any = timm.create_model(name, num_classes=len(self.class_names), **settings)
        except LOAD_ERRORS as error:
            raise InputError(f"the weights {pretrained!r} do not load into {name!r}: {first_line(error)}") from error
        if isinstance(pretrained, str):
            _check_covers(Path(pretrained), self.model)
        self._first_token = timm_pools_first_token(self.model)
        self._name, self._pretrained = name, pretrained
        config: Any = self.model.pretrained_cfg
        self.preprocess = timm_preprocess(config, expected, image_size)
        for parameter in self.head_parameters():
            nn.init.zeros_(parameter)

    def encoder(self) -> nn.Module:
        return self.model

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.model.get_classifier().parameters())

    def image_tower(self) -> nn.Module:
        return self.model

    def image_features(self, images: Tensor) -> Tensor:
        if self._first_token:
            return timm_first_token(self.model, images)
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)

    def logits(self, features: Tensor) -> Tensor:
        return self.model.get_classifier()(features).float()

    def provenance(self) -> dict[str, Any]:
        weights = Path(self._pretrained).name if isinstance(self._pretrained, str) else self._pretrained
        known = {"model": self._name, "pretrained": weights, "image_size": self.preprocess.image_size}
        return known | {"preprocess": asdict(self.preprocess)}


def _weights(name: str, pretrained: bool | str) -> dict[str, Any]:
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise InputError(f"no checkpoint {pretrained!r}; pass the path of a .safetensors or .pth file, or true")
        check_weights(Path(pretrained))
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": pretrained}}
    if pretrained:
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise InputError(f"timm has no weights for {name!r}; {INSTEAD}")
        repo = config.hf_hub_id
        if repo:
            repo = repo if repo != "timm/" else f"timm/{name}"
            require_hub_file(repo, ["model.safetensors", "pytorch_model.bin"], f"weights of {name!r}")
    return {"pretrained": pretrained}


def _check_covers(path: Path, model: Any) -> None:
    """timm silently leaves weights that a checkpoint lacks random: refuse a checkpoint of another model."""
    keys = timm.models.load_state_dict(str(path)).keys()
    head = {id(p) for p in model.get_classifier().parameters()}
    missing = [n for n, p in model.named_parameters() if id(p) not in head and n not in keys]
    if missing:
        raise InputError(
            f"{path} is a checkpoint of another model: it lacks {len(missing)} weights, such as {missing[0]!r}"
        )


def _expected(name: str, pretrained: bool | str, stated: Stated) -> dict[str, Any]:
    """What must be said of an image besides what timm knows of the weights."""
    architecture, _, tag = name.partition(".")
    if isinstance(pretrained, str):
        candidates = timm_candidates(architecture)
        if tag:
            candidates = {tag: candidates[tag]} if tag in candidates else {}
        return stated.complete(
            candidates, name, f", or their tag, as backbone.build.name={name}.{next(iter(candidates), '')}"
        )
    if pretrained and (config := timm.get_pretrained_cfg(name)):
        stated.check(timm_settings(config.to_dict()), f"timm's weights of {name}")
    return stated.values()
