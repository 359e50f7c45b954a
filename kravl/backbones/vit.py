"""Any timm vision transformer with a linear head (https://github.com/huggingface/pytorch-image-models)."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kravl.backbones.classifier import COSINE_SCALE, Classifier, head_logits
from kravl.backbones.cls_token import timm_first_token, timm_pools_first_token
from kravl.backbones.heads.head import Problem
from kravl.backbones.preprocess import Stated
from kravl.backbones.timm_heads import final_layers, head_inputs, heads, mean_logits
from kravl.backbones.weights.sources import WeightFile
from kravl.backbones.weights.timm_weights import find_vit, load_vit, untrained_vit
from kravl.runtime.errors import InputError


class VitClassifier(Classifier):
    """A timm model whose new head starts at zero, so that adaptation starts without a preference for any class.

    Of several heads, such as those of distilled models and CrossViT, the mean are the logits, as at inference in timm.

    Args:
        class_names: C names, the head's rows.
        templates: unused; every backbone takes the same first two arguments.
        name: a timm model (``vit_small_patch14_dinov2``), ``hf-hub:org/repo`` or ``local-dir:/folder``.
        pretrained: True for timm's own weights or those of the hub or the folder, the path of a checkpoint, or False
            for random weights.
        image_size: pixels, or height and width, if not the model's own; position embeddings are interpolated.
        mean: of the RGB channels in [0, 1], with which a checkpoint at a path was trained; None where timm knows it,
            as it does where ``name`` has a tag (``vit_base_patch16_224.mae``) or all tags of the model agree.
        std: likewise.
        interpolation: likewise, as ``bicubic``.
        resize_mode: likewise, ``shortest`` (the centre of an image), ``longest`` (all of it, padded) or ``squash``.
        dtype: see `Classifier`.

    Raises:
        InputError: unknown model, no linear head, unusable checkpoint, or weights that cannot be downloaded.
    """

    zero_shot = False

    def __init__(  # noqa: PLR0913 (each is a setting of backbone.build)
        self,
        class_names: Sequence[str],
        templates: Sequence[str | Sequence[str]],
        *,
        name: str,
        pretrained: bool | str,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str | None = None,
        resize_mode: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(class_names, dtype)
        stated = Stated(mean, std, interpolation, resize_mode)
        loaded = load_vit(name, pretrained, len(self.class_names), image_size, stated)
        self.model: Any = loaded.model
        self.preprocess, self._widths = loaded.preprocess, loaded.widths
        self._first_token = timm_pools_first_token(self.model)
        self._name, self._pretrained = name, pretrained
        for layer in final_layers(self.model):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    @classmethod
    def skeleton(cls, num_classes: int, settings: Mapping[str, Any]) -> nn.Module | None:
        if not {"name", "pretrained"} <= settings.keys():
            return None  # told when the classifier is built
        return untrained_vit(settings["name"], settings["pretrained"], num_classes, settings.get("image_size"))

    @classmethod
    def find_weights(cls, settings: Mapping[str, Any]) -> list[WeightFile]:
        if not {"name", "pretrained"} <= settings.keys():
            return []
        stated = Stated(*(settings.get(field.name) for field in fields(Stated)))
        return find_vit(settings["name"], settings["pretrained"], stated)

    def encoder(self) -> nn.Module:
        return self.model

    def head_parameters(self) -> list[nn.Parameter]:
        if self.feature_head is not None:  # in place of the model's own, which stays as it is
            return list(self.feature_head.parameters())
        return [parameter for head in heads(self.model) for parameter in head.parameters()]

    def head_problem(self, num_images: int, before_projection: bool = False) -> Problem:
        if before_projection:
            raise InputError(f"{self._name} has no visual projection, which this head trains; choose a CLIP backbone")
        return Problem(len(self.class_names), sum(self._widths), num_images, COSINE_SCALE, None)

    def image_tower(self) -> nn.Module:
        return self.model

    def image_features(self, images: Tensor) -> Tensor:
        if self._first_token:
            return timm_first_token(self.model, images)
        features = head_inputs(self.model, images)
        return features[0] if len(features) == 1 else torch.cat(features, dim=1)

    def logits(self, features: Tensor) -> Tensor:
        if (fitted := self.fitted_head()) is not None:
            return head_logits(fitted, features, None)
        parts = [features] if len(self._widths) == 1 else list(features.split(self._widths, dim=1))
        return mean_logits(self.model, parts).float()

    def provenance(self) -> dict[str, Any]:
        # a file's or folder's name only: where it lies would tell where a user keeps it
        weights = Path(self._pretrained).name if isinstance(self._pretrained, str) else self._pretrained
        schema, _, place = self._name.partition(":")
        name = f"local-dir:{Path(place).name}" if schema == "local-dir" else self._name
        preprocess = self.preprocess.recorded()
        known = {"model": name, "pretrained": weights, "image_size": preprocess["image_size"]}
        return known | {"preprocess": preprocess} | self.stored_as()
