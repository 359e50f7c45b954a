"""The contract of a head: image features (b, d) and the classes' text features (C, d) -> logits (b, C).

A head knows features and labels, no model and no images. It is fitted once, in closed form, by full-batch optimisation
or by steps over mini-batches, and all that it has learned is in its parameters and buffers.
"""

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kravl.runtime.errors import InputError

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """What a head is built for.

    Args:
        width: d, numbers of a feature.
        num_images: how many it will be fitted on.
        scale: of cosine similarities in zero-shot logits.
        text: unit text features (C, d) of the classes; None without a text tower.
        projection: of a head that takes features before it, the visual projection (width, d).
    """

    num_classes: int
    width: int
    num_images: int
    scale: float
    text: Tensor | None
    projection: Tensor | None = None


class Support(NamedTuple):
    """What a head is fitted on: features (n, views, d), labels (n,), text features (C, d) or None, and a seed."""

    features: Tensor
    labels: Tensor
    text: Tensor | None
    seed: int

    def first_views(self) -> Tensor:
        """One feature (n, d) of each image."""
        return self.features[:, 0]

    def mean_views(self) -> Tensor:
        """The normalised mean (n, d) of each image's views."""
        return F.normalize(self.features.mean(dim=1), dim=-1)

    def every_view(self) -> "Support":
        """Each view as an image of its own: features (n * views, 1, d)."""
        views = self.features.shape[1]
        return self._replace(features=self.features.flatten(0, 1)[:, None], labels=self.labels.repeat_interleave(views))

    def counts(self, num_classes: int) -> Tensor:
        """Images of each class (C,)."""
        return torch.bincount(self.labels, minlength=num_classes)


class Head(nn.Module, ABC):
    """A classifier of features.

    Attributes:
        rule: how it is fitted: ``closed form``, ``full batch`` or ``steps``.
        needs_text: whether it takes text features.
        before_projection: whether its features are those before the visual projection, as they are.
        needs_every_class: whether it is undefined where a class has no training image.
        starts_at_zero_shot: whether its unfitted logits are ``scale`` times the cosine of feature and text, so that
            weights between unfitted and fitted are a WiSE-FT curve.
        grid: values of settings that `tune` tries, each with a fit of its own.
        late_grid: likewise, of settings that do not change the fit.

    Args:
        views: augmented views of each training image that it takes; one, unaugmented, without augmentation.
        least_area: share of an image that a view shows at least.
    """

    rule: ClassVar[str]
    needs_text: ClassVar[bool] = True
    before_projection: ClassVar[bool] = False
    needs_every_class: ClassVar[bool] = False
    starts_at_zero_shot: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {}
    late_grid: ClassVar[Mapping[str, Sequence[Any]]] = {}
    scale: Tensor
    fitted: Tensor

    def __init__(self, problem: Problem, *, views: int = 10, least_area: float = 0.5) -> None:
        super().__init__()
        if self.needs_text and problem.text is None:
            raise InputError(f"{type(self).__name__} needs text features, and there are none without a text tower")
        self.num_classes, self.width = problem.num_classes, problem.width
        self.views, self.least_area = views, least_area
        self.register_buffer("scale", torch.tensor(float(problem.scale)), persistent=False)
        self.register_buffer("fitted", torch.tensor(False))

    @abstractmethod
    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        """Logits (b, C) of features (b, d)."""

    @abstractmethod
    def learn(self, support: Support) -> None:
        """Set parameters and buffers from the features of the training images; see `fit`."""

    def penalty(self, text: Tensor | None) -> Tensor | None:
        """What is added to the cross-entropy, a number; None for nothing."""
        return None

    def image_features(self, features: Tensor) -> Tensor:
        """Features (b, d) as the head changes them before it compares them with the text of a class it did not see."""
        return features

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.scale.dtype

    def fit(self, support: Support) -> None:
        """Fit the head.

        Raises:
            InputError: labels that are not positions of classes, or a class without images that the head needs.
            FloatingPointError: what came out is not finite.
        """
        labels = support.labels
        if len(labels) == 0 or int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
            wrong = [int(label) for label in labels if not 0 <= label < self.num_classes][:3]
            raise InputError(f"labels to fit a head on must be 0 to {self.num_classes - 1}, and at least one: {wrong}")
        if self.needs_every_class and (empty := (support.counts(self.num_classes) == 0).nonzero().flatten().tolist()):
            raise InputError(f"{type(self).__name__} needs an image of every class; classes {empty[:5]} have none")
        self.fitted.fill_(True)
        self.learn(support)
        for name, tensor in self.state_dict().items():
            if not tensor.isfinite().all():
                raise FloatingPointError(f"{type(self).__name__}: {name} is not finite after the fit; lower head.lr")

    def hyperparameters(self) -> dict[str, int | float | str | bool | None]:
        """The settings of ``__init__``, as they are now."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "problem"]
        values = {name: getattr(self, name) for name in names}
        return {
            name: float(f"{value.item():.6g}") if isinstance(value, Tensor) else value for name, value in values.items()
        }

    def choose(self, settings: Mapping[str, Any]) -> None:
        """Replace settings by those that were selected."""
        for name, value in settings.items():
            if name in self._buffers:
                getattr(self, name).fill_(value)
            else:
                setattr(self, name, value)

    def _setting(self, name: str, value: float) -> None:
        """Keep a number that logits depend on with the tensors, in double precision: it may be selected by `choose`."""
        self.register_buffer(name, torch.tensor(float(value), dtype=torch.float64))


def cosine_logits(scale: Tensor, features: Tensor, classes: Tensor) -> Tensor:
    """``scale`` times the cosine (b, C) of unit features (b, d) and class vectors (C, d) of any length."""
    return scale * (features @ F.normalize(classes, dim=-1).T)


def given(text: Tensor | None) -> Tensor:
    """Text features of a head that was built with some."""
    assert text is not None
    return text
