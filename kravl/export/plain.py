"""A run's model as others know it: weights merged, classes restored, nothing of kravl in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.backbones.classifier import Classifier
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.heads.head import Head
from kravl.run.finished.restore import LoadedRun

OWN = ("class_weight", "context")  # parameters of kravl's; what they make of the classes is written apart


@dataclass(frozen=True)
class PlainModel:
    """The merged encoder of a run, in single precision and evaluation mode.

    Args:
        encoder: open_clip's or timm's own model.
        head: unit class features (C, d) of a CLIP; None of a model with a linear head.
        text_features: (C, d) of the classes' prompts, which a trained head may have left.
        scale: of the products of image features and ``head``.
        temperature: what logits are divided by to give probabilities.
        settings: of the backbone: name, pretrained and what else it was built with.
    """

    run: LoadedRun
    alpha: float
    encoder: Any
    head: Tensor | None
    text_features: Tensor | None
    scale: float
    settings: Mapping[str, Any]
    temperature: float = 1.0

    @property
    def clip(self) -> ClipClassifier:
        """Of a CLIP."""
        assert isinstance(self.run.classifier, ClipClassifier)
        return self.run.classifier

    @property
    def is_clip(self) -> bool:
        return self.head is not None

    def classifier(self) -> nn.Module:
        """Images (b, 3, height, width) to logits (b, C), as one module."""
        if (fitted := self.run.classifier.fitted_head()) is not None:
            return HeadScores(self.run.classifier, fitted, self.text_features)
        return Scores(self.encoder, self.head, self.scale) if self.head is not None else self.encoder


class Scores(nn.Module):
    """A CLIP's image tower with the features of its classes baked in."""

    head: Tensor

    def __init__(self, model: Any, head: Tensor, scale: float) -> None:
        super().__init__()
        self.features = ImageFeatures(model)
        self.register_buffer("head", (scale * head.T).contiguous())

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images) @ self.head


class HeadScores(nn.Module):
    """An image tower with a fitted head on its features."""

    text: Tensor | None

    def __init__(self, classifier: Classifier, head: Head, text: Tensor | None) -> None:
        super().__init__()
        self.classifier, self.head = classifier, head
        self.register_buffer("text", text)

    def forward(self, images: Tensor) -> Tensor:
        features = self.classifier.image_features(images)
        scores: Tensor = self.head(features.to(self.head.dtype), self.text)
        return scores


class ImageFeatures(nn.Module):
    """Unit features (b, d) of images (b, 3, height, width)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.visual(images), dim=-1)


class TextFeatures(nn.Module):
    """Unit features (n, d) of tokens (n, context length)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.model.encode_text(tokens), dim=-1)


@torch.no_grad()
def plain_model(run: LoadedRun, alpha: float, base: bool = False) -> PlainModel:
    """Merge ``alpha`` of the update for good: the adapters of ``run`` are gone afterwards.

    Args:
        run: on the CPU, its adapters merged at ``alpha``.
        base: leave the pretrained weights in the encoder; the class features are adapted in any case.
    """
    classifier, adapters = run.classifier.eval(), run.adapters
    classifier.prepare()
    head, text, scale = None, None, 1.0
    if isinstance(classifier, ClipClassifier):
        head, scale = classifier.text_head()
        head, text = head.clone(), classifier.encode_text().float().clone()
    if base:
        adapters.unmerge()
        adapters.merge(0.0)
    adapters.merge_and_unload()
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    settings = {key: value for key, value in run.cfg.backbone.build.items() if not key.startswith("_")}
    return PlainModel(run, alpha, classifier.encoder(), head, text, scale, settings, run.temperature(alpha))
