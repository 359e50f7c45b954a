"""Any timm vision transformer with a linear head (https://github.com/huggingface/pytorch-image-models)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from kravl.backbones.classifier import Classifier, Preprocess
from kravl.backbones.cls_token import timm_first_token, timm_pools_first_token
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

    Raises:
        InputError: unknown model, no linear head, unusable checkpoint, or weights that cannot be downloaded.
    """

    zero_shot = False

    def __init__(
        self,
        class_names: Sequence[str],
        templates: Sequence[str],
        *,
        name: str,
        pretrained: bool | str,
        image_size: int | None = None,
    ) -> None:
        super().__init__(class_names)
        architecture = name.split(".")[0]
        if architecture not in timm.list_models():
            raise unknown("timm model", name, timm.list_models("*vit*") or timm.list_models())
        settings = _weights(name, pretrained) | ({} if image_size is None else {"img_size": image_size})
        try:
            self.model: Any = timm.create_model(name, num_classes=len(self.class_names), **settings)
        except LOAD_ERRORS as error:
            raise InputError(f"the weights {pretrained!r} do not load into {name!r}: {first_line(error)}") from error
        if isinstance(pretrained, str):
            _check_covers(Path(pretrained), self.model)
        self._first_token = timm_pools_first_token(self.model)
        self._name, self._pretrained = name, pretrained
        self.preprocess = _preprocess(self.model, image_size)
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
        return {"model": self._name, "pretrained": weights, "image_size": self.preprocess.image_size}


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


def _preprocess(model: Any, image_size: int | None) -> Preprocess:
    config = timm.data.resolve_model_data_config(model)
    size = image_size or config["input_size"][-1]
    resize = int(size / config["crop_pct"])
    return Preprocess(size, resize, tuple(config["mean"]), tuple(config["std"]), config["interpolation"])
