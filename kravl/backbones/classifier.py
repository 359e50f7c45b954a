"""The contract of a backbone: images (b, 3, h, w) -> logits (b, classes), with an encoder that can be adapted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import open_clip
import timm
import torch
from torch import Tensor, nn

from kravl.backbones.heads.head import Head, Problem
from kravl.backbones.preprocess import Preprocess
from kravl.backbones.text.context import ContextSettings
from kravl.backbones.weights.sources import WeightFile
from kravl.runtime.errors import InputError, unknown

COSINE_SCALE = 100.0  # CLIP's own at the end of its training
FROZEN_DTYPES = {"bf16": torch.bfloat16}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
FEATURE_HEAD = "feature_head"  # the encoder's module, so that it is saved and restored with what trains
RANDOM = (timm.layers.DropPath, timm.layers.PatchDropout, open_clip.transformer.PatchDropout)


class Classifier(nn.Module, ABC):
    """A pretrained model that scores images against named classes.

    Args:
        class_names: the classes of the logits' columns, in order.
        dtype: ``bf16``: frozen matrices are to be stored in bfloat16. This alone changes nothing: `inject` stores
            them, given ``frozen_dtype`` of the classifier. None: weights as they are.

    Raises:
        InputError: another ``dtype``.
    """

    preprocess: Preprocess
    zero_shot: bool  # whether the untrained classifier already knows the classes
    train_statistics = False  # whether norms update their running statistics in training
    head_waits = False  # whether class weights that are there do not score yet, see `start_head`

    def __init__(self, class_names: Sequence[str], dtype: str | None = None) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.frozen_dtype = parse_dtype(dtype)

    @classmethod
    def skeleton(cls, num_classes: int, settings: Mapping[str, Any]) -> nn.Module | None:
        """The encoder of a classifier with these ``settings``, without memory for its weights (on the meta device).

        What is chosen of it is checked before anything is loaded; None where only the loaded one can be asked.

        Raises:
            InputError: no such model.
        """
        return None

    @classmethod
    def find_weights(cls, settings: Mapping[str, Any]) -> list[WeightFile]:
        """Where the weights of a classifier with these ``settings`` are; empty for random ones, or if it is not known.

        Raises:
            InputError: they are not there and cannot be downloaded, or do not go with the settings.
        """
        return []

    @abstractmethod
    def encoder(self) -> nn.Module:
        """The pretrained module whose weights are adapted; site and parameter names are relative to it."""

    @abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """Features (b, d), the head's input, of images (b, 3, height, width)."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Logits (b, classes) in float32 for image features (b, d)."""

    @abstractmethod
    def image_tower(self) -> nn.Module:
        """The module that `image_features` runs; it may include the head."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) in float32 for images (b, 3, height, width), or for their features (b, d)."""
        return self.logits(images if images.dim() == 2 else self.image_features(images))

    def features_are_fixed(self) -> bool:
        """Whether an image has the same features in every step: nothing before the head is trained or random."""
        head = {id(p) for p in self.head_parameters()}
        tower = self.image_tower()
        trains = any(p.requires_grad for p in tower.parameters() if id(p) not in head)
        if self.train_statistics and statistics(tower):
            return False
        return not trains and not any(_varies(module) for module in tower.modules())

    def prepare(self) -> None:
        """Recompute what evaluation reuses between batches; call it whenever trained weights have changed."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Newly initialised parameters, which may need their own learning rate; empty if there are none."""
        return []

    def new_parameters(self) -> list[nn.Parameter]:
        """All parameters that no pretrained model has: those of a head, and a learned context."""
        return self.head_parameters()

    def free_head(self) -> None:
        """Turn the class weights (C, d) into parameters, unless they are parameters already."""
        return

    @torch.no_grad()
    def start_head(self) -> None:
        """Let class weights begin: from the text features (C, d) under the current weights, where there are some."""
        if (text := self.prepared_text()) is not None:
            for parameter in self.head_parameters():
                parameter.copy_(text)
        self.head_waits = False

    @abstractmethod
    def head_problem(self, num_images: int, before_projection: bool = False) -> Problem:
        """What a head on features, fitted on so many images, is built for.

        Raises:
            InputError: ``before_projection``, and there is no visual projection.
        """

    def prepared_text(self) -> Tensor | None:
        """Unit text features (C, d) of the classes as evaluation uses them; None without a text tower."""
        return None

    def attach_head(
        self, make_head: Callable[[Problem], Head], num_images: int, before_projection: bool = False
    ) -> Head:
        """Put a head, still unfitted, in place of the classifier's own; from then on `image_features` are its input.

        Raises:
            InputError: it needs text features or a visual projection, and there is none.
        """
        head = make_head(self.head_problem(num_images, before_projection))
        self.encoder().add_module(FEATURE_HEAD, head)
        return head

    @property
    def feature_head(self) -> Head | None:
        """The head that `attach_head` put in place."""
        head = self.encoder()._modules.get(FEATURE_HEAD)
        return head if isinstance(head, Head) else None

    def fitted_head(self) -> Head | None:
        """The head on features, once it is fitted: before, the classifier's own logits stand."""
        head = self.feature_head
        return head if head is not None and bool(head.fitted) else None

    def add_classes(self, class_names: Sequence[str], templates: Sequence[str | Sequence[str]]) -> None:
        """In evaluation only, score images against further classes too, in columns after the existing ones.

        Args:
            templates: format strings with one ``{}``, or for each class its own prompts.

        Raises:
            InputError: the model knows only the classes that it is trained on.
        """
        raise InputError(
            f"{type(self).__name__} has no text tower: it cannot score {len(class_names)} classes that are not "
            f"trained ({', '.join(class_names[:3])}, ...); choose a CLIP backbone or an evaluation of trained classes"
        )

    @classmethod
    def check_prompts(
        cls, settings: Mapping[str, Any], class_names: Sequence[str], prompts: Sequence[str | Sequence[str]]
    ) -> None:
        """Raise InputError for prompts that `add_classes` of a model built with ``settings`` would refuse."""
        return

    def learn_context(self, context: ContextSettings) -> None:
        """Learn vectors in front of the class names, in place of the templates; until they change, nothing does.

        Raises:
            InputError: there is no text tower that takes them, or they do not fit; see `check_context`.
        """
        raise self._no_context(context)

    @classmethod
    def check_context(cls, settings: Mapping[str, Any], context: ContextSettings, class_names: Sequence[str]) -> None:
        """Raise InputError for a context that `learn_context` of a model built with ``settings`` would refuse."""
        raise cls._no_context(context)

    @classmethod
    def _no_context(cls, context: ContextSettings) -> InputError:
        return InputError(
            f"{cls.__name__} has no text tower: context_tokens={context.tokens} takes a CLIP backbone, such as "
            "backbone=clip_vitb16"
        )

    def checkpoint_blocks(self) -> None:
        """Save only the input of each block for the backward pass, which recomputes the block.

        Raises:
            InputError: the architecture does not support it.
        """
        try:
            self.encoder().set_grad_checkpointing(True)  # type: ignore[operator]
        except AssertionError as error:  # timm raises it
            raise InputError(f"checkpointing=true: {error} in {self.provenance()['model']}") from error

    def stored_as(self) -> dict[str, str]:
        """The part of `provenance` that says what frozen matrices are rounded to."""
        names = [name for name, dtype in FROZEN_DTYPES.items() if dtype == self.frozen_dtype]
        return {"dtype": names[0]} if names else {}

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What a reader must know to rebuild the untrained classifier, as JSON values."""

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode for the parts that train; a module whose parameters are all frozen stays in eval mode.

        So does a norm with running statistics, whatever of it trains, unless ``train_statistics``.
        """
        _set_mode(self, mode)
        for module in self.modules():
            if _keeps_statistics(module):
                module.training = mode and self.train_statistics
        return self


def head_logits(head: Head, features: Tensor, text: Tensor | None) -> Tensor:
    """Logits (b, C) in the precision of ``head`` itself, whatever features and text were computed in."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.to(head.dtype), None if text is None else text.to(head.dtype))


def statistics(model: nn.Module) -> list[str]:
    """Names of the buffers in which the norms of ``model`` (BatchNorm and others) keep running statistics."""
    norms = [(path, module) for path, module in model.named_modules() if _keeps_statistics(module)]
    return [f"{path}.{name}".lstrip(".") for path, norm in norms for name, _ in norm.named_buffers(recurse=False)]


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


def _varies(module: nn.Module) -> bool:
    """Whether the module, once training, treats an image differently each time; see `Classifier.train`."""
    if isinstance(module, BATCH_NORMS):
        return not _keeps_statistics(module)  # those of the batch
    return isinstance(module, RANDOM) or (isinstance(module, nn.Dropout) and module.p > 0)


def _set_mode(module: nn.Module, mode: bool) -> None:
    parameters = list(module.parameters())
    # a module without parameters (dropout, activation) follows its parent
    module.training = mode and (not parameters or any(p.requires_grad for p in parameters))
    for child in module.children():
        _set_mode(child, module.training)


def parse_dtype(name: Any) -> torch.dtype | None:
    """The type in which frozen matrices are stored, None for as they are. Raises InputError for another name."""
    if name is not None and (not isinstance(name, str) or name not in FROZEN_DTYPES):
        raise unknown("backbone.build.dtype", str(name), (*FROZEN_DTYPES, "null"))
    return None if name is None else FROZEN_DTYPES[name]
