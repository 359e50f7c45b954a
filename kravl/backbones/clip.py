"""Any open_clip model as a classifier of named classes (Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.backbones.classifier import COSINE_SCALE, FEATURE_HEAD, Classifier, head_logits
from kravl.backbones.cls_token import clip_first_token, clip_pools_first_token
from kravl.backbones.heads.head import Head, Problem
from kravl.backbones.preprocess import Stated, clip_preprocess
from kravl.backbones.structure.projection import visual_projection
from kravl.backbones.text.class_features import ClassPrompts, Prompts, class_prompts
from kravl.backbones.text.context import ContextSettings, context_prompts, initial_context, require_context_tower
from kravl.backbones.text.tokens import require_text, tokenize, tokenizer_of
from kravl.backbones.text.tower import causal_text_tower
from kravl.backbones.weights.clip_weights import choose_clip, find_clip, load_clip, untrained_clip, without_progress
from kravl.backbones.weights.sources import WeightFile
from kravl.runtime.errors import some_of, unknown

log = logging.getLogger(__name__)
NOT_TEXT = ("logit_scale", "logit_bias", "class_weight")
# rows of the text tower computed at a time, see `ClassPrompts`; a prompt per class of ImageNet has 4,008
TEXT_ROWS = 4096


class ClipClassifier(Classifier):
    """Cosine similarity of image and class-text features, times a scale.

    The text feature of a class is the normalised mean of its prompts' normalised features. It is computed once
    while the text tower is frozen, and in every training step while it trains.

    Args:
        class_names: C names as they should appear in a prompt.
        templates: format strings with one ``{}``, or for each class its own prompts, whose number may differ.
        name: an open_clip model (``ViT-B-16``), ``kravl-tiny``, ``hf-hub:org/repo`` or ``local-dir:/folder``.
        pretrained: an open_clip tag (``openai``; ``kravl`` for kravl-tiny), the path of a checkpoint, or None: random
            weights.
        quick_gelu: activation of the checkpoint at a path; None where open_clip knows it.
        logit_scale: ``fixed`` (100, as CLIP-LoRA and Tip-Adapter) or ``learned`` (the checkpoint's own).
        mean: of the RGB channels in [0, 1], with which a checkpoint at a path was trained; None where open_clip knows
            it, as it does where all published weights of the model agree.
        std: likewise.
        interpolation: likewise, ``bicubic`` or ``bilinear``.
        resize_mode: likewise, ``shortest`` (the centre of an image), ``longest`` (all of it, padded) or ``squash``.
        long_prompts: what becomes of prompts beyond the text tower's context: ``cut``, which is told, or ``error``.
        dtype: see `Classifier`.
        shared_dropout: whether prompts that share a prefix share its dropout, too, so that it is computed once: other
            noise, in less time. A model where nothing drops or is shared is refused by a run.

    Raises:
        InputError: unknown model or tag, unusable checkpoint, or weights that cannot be downloaded.
    """

    zero_shot = True
    _text_features: Tensor | None
    _further_features: Tensor | None
    _context: ContextSettings | None = None
    _context_start: Tensor

    def __init__(  # noqa: PLR0913 (each is a setting of backbone.build)
        self,
        class_names: Sequence[str],
        templates: Prompts,
        *,
        name: str,
        pretrained: str | None,
        quick_gelu: bool | None = None,
        logit_scale: str = "fixed",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str | None = None,
        resize_mode: str | None = None,
        long_prompts: str = "cut",
        dtype: str | None = None,
        shared_dropout: bool = False,
    ) -> None:
        super().__init__(class_names, dtype)
        if logit_scale not in ("fixed", "learned"):
            raise unknown("logit_scale", logit_scale, ("fixed", "learned"))
        self.model: Any
        stated = Stated(mean, std, interpolation, resize_mode)
        chosen = choose_clip(name, pretrained, quick_gelu, stated)
        with without_progress():
            self._tokenizer = tokenizer_of(name)
        self._long_prompts = long_prompts
        tokens = self._tokenize(self.class_names, templates)  # before the weights: a prompt may be refused
        self.model, self._quick_gelu = load_clip(chosen)
        self._shared_dropout = shared_dropout
        self._first_token = clip_pools_first_token(self.model.visual)
        self.preprocess = clip_preprocess(self.model.visual.preprocess_cfg)
        self._name, self._pretrained, self._learned_scale = name, pretrained, logit_scale == "learned"
        self._prompts = self._class_prompts(*tokens)
        self._further = nn.ModuleList()
        self._with_context = nn.ModuleList()  # the same prompts with a learned context, those of further classes last
        self._told = False
        self.register_buffer("_text_features", None, persistent=False)
        self.register_buffer("_further_features", None, persistent=False)

    @classmethod
    def skeleton(cls, num_classes: int, settings: Mapping[str, Any]) -> nn.Module | None:
        if not {"name", "pretrained"} <= settings.keys():
            return None  # told when the classifier is built
        encoder = untrained_clip(settings["name"])
        require_text(settings["name"])
        return encoder

    @classmethod
    def find_weights(cls, settings: Mapping[str, Any]) -> list[WeightFile]:
        if not {"name", "pretrained"} <= settings.keys():
            return []
        stated = Stated(*(settings.get(field.name) for field in fields(Stated)))
        return find_clip(choose_clip(settings["name"], settings["pretrained"], settings.get("quick_gelu"), stated))

    def encoder(self) -> nn.Module:
        return self.model

    @torch.no_grad()
    def free_head(self) -> None:
        # owned by the model, so that it is saved and interpolated with the other trained weights
        self.model.register_parameter("class_weight", nn.Parameter(self.encode_text()))

    def head_parameters(self) -> list[nn.Parameter]:
        added = ("class_weight", f"{FEATURE_HEAD}.")
        return [p for name, p in self.model.named_parameters() if name.startswith(added)]

    @torch.no_grad()
    def head_problem(self, num_images: int, before_projection: bool = False) -> Problem:
        text = self.encode_text()
        projection = visual_projection(self.model, self._name) if before_projection else None
        width = text.shape[1] if projection is None else projection.shape[0]
        return Problem(len(text), width, num_images, self._cosine_scale(), text, projection)

    def prepared_text(self) -> Tensor:
        self.prepare()
        assert self._text_features is not None
        return self._text_features

    def new_parameters(self) -> list[nn.Parameter]:
        return [*self.head_parameters(), *([self.model.context] if self._context else [])]

    def learn_context(self, context: ContextSettings) -> None:
        require_context_tower(self.model, self._name)
        prompts = self._context_prompts(self.class_names, context)  # may be refused
        embedding = getattr(self.model, "text", self.model).token_embedding
        start = initial_context(embedding, self._tokenizer, context, len(self.class_names))
        # owned by the model, so that it is saved with the other trained weights
        self.model.register_parameter("context", nn.Parameter(start))
        self.register_buffer("_context_start", start.clone(), persistent=False)
        self._context = context
        self._with_context.append(prompts)

    @classmethod
    def check_context(cls, settings: Mapping[str, Any], context: ContextSettings, class_names: Sequence[str]) -> None:
        if (encoder := cls.skeleton(len(class_names), settings)) is not None:
            require_context_tower(encoder, settings["name"])
            context_prompts(tokenizer_of(settings["name"]), class_names, context)

    @property
    def tokenizer(self) -> Any:
        """open_clip's, texts -> tokens (n, context length)."""
        return self._tokenizer

    @torch.no_grad()
    def text_head(self) -> tuple[Tensor, float]:
        """Unit class features (C, d), and the scale of their products with image features: the logits without bias."""
        self.prepare()
        return self._class_features().float(), float(self.model.logit_scale.exp()) if self._learned_scale else 100.0

    def text_trains(self) -> bool:
        """Whether a parameter outside the image tower (and the scale) is trained."""
        # asked in every step: a walk over the names of the image tower's parameters would take most of a millisecond
        own = [p for name, p in self.model.named_parameters(recurse=False) if name not in NOT_TEXT]
        parts = (part for name, part in self.model.named_children() if name not in ("visual", FEATURE_HEAD))
        return any(p.requires_grad for p in own) or any(p.requires_grad for part in parts for p in part.parameters())

    def add_classes(self, class_names: Sequence[str], templates: Prompts) -> None:
        self._further.append(self._class_prompts(*self._tokenize(class_names, templates)))
        if self._context:
            assert not self._context.per_class  # refused before
            self._with_context.append(self._context_prompts(class_names, self._context))
        self._text_features = None

    @classmethod
    def check_prompts(cls, settings: Mapping[str, Any], class_names: Sequence[str], prompts: Prompts) -> None:
        if settings.get("long_prompts") == "error" and {"name", "pretrained"} <= settings.keys():
            stated = Stated(*(settings.get(field.name) for field in fields(Stated)))
            choose_clip(settings["name"], settings["pretrained"], settings.get("quick_gelu"), stated)  # or is unknown
            tokenize(tokenizer_of(settings["name"]), class_names, class_prompts(class_names, prompts), "error")

    def encode_text(self) -> Tensor:
        """Unit text features of the classes, shape (C, d)."""
        return self._prompts.features()

    @torch.no_grad()
    def prepare(self) -> None:
        if self._text_features is not None and not self.text_trains():
            return
        own, *others = self._with_context if self._context_has_changed() else (self._prompts, *self._further)
        # without autocast: computed once for many batches, hence in full precision
        with torch.autocast(self._prompts.tokens.device.type, enabled=False):
            self._text_features = own.features()  # type: ignore[operator]
            self._tell_equal_features(self._text_features)
            further = [prompts.features() for prompts in others]  # type: ignore[operator]
        self._further_features = torch.cat(further) if further else None

    def _context_vectors(self) -> Tensor:
        return self.model.context

    def _context_has_changed(self) -> bool:
        """Whether there is a learned context: at its start it stands for none, that is for the pretrained model."""
        return self._context is not None and not torch.equal(self.model.context, self._context_start)

    def _tell_equal_features(self, features: Tensor) -> None:
        """Once, a line for classes that the text tower does not tell apart though their prompts differ."""
        if not self._told and (groups := self._prompts.equal(self.class_names, features)):
            log.warning("classes with equal text features, which cannot be told apart: %s", some_of(groups, 10, "; "))
        self._told = True

    def _tokenize(self, class_names: Sequence[str], prompts: Prompts) -> tuple[Tensor, list[int]]:
        """Tokens of the prompts, class by class, and how many each class has."""
        of_classes = class_prompts(class_names, prompts)
        return tokenize(self._tokenizer, class_names, of_classes, self._long_prompts), [len(p) for p in of_classes]

    def _context_prompts(self, class_names: Sequence[str], context: ContextSettings) -> ClassPrompts:
        tokens = context_prompts(self._tokenizer, class_names, context)
        return self._class_prompts(tokens, [1] * len(tokens), self._context_vectors)

    def _class_prompts(
        self, tokens: Tensor, sizes: list[int], context: Callable[[], Tensor] | None = None
    ) -> ClassPrompts:
        tower = causal_text_tower(self.model, context, self._shared_dropout)
        tokens = tokens.to(self.model.logit_scale.device)
        return ClassPrompts(tokens, sizes, self.model.encode_text, tower, TEXT_ROWS)

    def _class_features(self) -> Tensor:
        if (head := self.model._parameters.get("class_weight")) is not None and not self.head_waits:
            return F.normalize(head, dim=-1)
        if self.training and self.text_trains():
            prompts = self._with_context[0] if self._context else self._prompts
            return prompts.shared_features()  # type: ignore[operator]
        if self._text_features is None:
            self.prepare()
        assert self._text_features is not None
        return self._text_features

    def checkpoint_blocks(self) -> None:
        super().checkpoint_blocks()
        if isinstance(self.model.visual, ModifiedResNet):  # which accepts the setting and ignores it
            log.warning("checkpointing=true: open_clip cannot recompute the image tower of %s", self._name)

    def image_tower(self) -> nn.Module:
        return self.model.visual

    def image_features(self, images: Tensor) -> Tensor:
        if (head := self.feature_head) is not None and head.before_projection:
            visual = self.model.visual
            projection, visual.proj = visual.proj, None
            try:
                return self._encoded(images)
            finally:
                visual.proj = projection
        return F.normalize(self._encoded(images), dim=-1)

    def _encoded(self, images: Tensor) -> Tensor:
        return clip_first_token(self.model.visual, images) if self._first_token else self.model.encode_image(images)

    def logits(self, features: Tensor) -> Tensor:
        text = self._class_features()
        if (fitted := self.fitted_head()) is not None:
            return self._head_logits(fitted, features, text)
        if (head := self.feature_head) is not None and head.before_projection:
            features = F.normalize(features @ self.model.visual.proj, dim=-1)
        if self._further_features is not None and not self.training:
            text = torch.cat([text, self._further_features])
        scale = self.model.logit_scale.exp() if self._learned_scale else COSINE_SCALE
        return scale * (features.float() @ text.float().T)

    def _cosine_scale(self) -> float:
        return float(self.model.logit_scale.detach().exp()) if self._learned_scale else COSINE_SCALE

    def _head_logits(self, head: Head, features: Tensor, text: Tensor) -> Tensor:
        """Those of a head; of further classes the zero-shot ones of the features as the head changes them."""
        logits = head_logits(head, features, text)
        if self._further_features is None or self.training:
            return logits
        further = self._cosine_scale() * (head.image_features(features.to(head.dtype)) @ self._further_features.T)
        return torch.cat([logits, further], dim=1)

    def provenance(self) -> dict[str, Any]:
        # a file's name only: its folder would tell where a user keeps it
        weights = Path(self._pretrained).name if self._pretrained else None
        known = {"model": self._name, "pretrained": weights, "quick_gelu": self._quick_gelu}
        return known | {"preprocess": self.preprocess.recorded()} | self.stored_as()
