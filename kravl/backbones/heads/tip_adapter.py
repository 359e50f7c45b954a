"""Tip-Adapter: a cache of training features beside zero-shot (Zhang et al., ECCV 2022, 2207.09519)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given


class TipAdapter(Head):
    """Zero-shot logits + alpha * exp(-beta * (1 - f·K)) V, K the training features and V their one-hot labels.

    A key is the normalised mean of an image's views. The published start of both numbers differs by data set and a
    grid of them is searched on validation images (for ImageNet on its test images); here they are fixed.

    Args:
        alpha: weight of the cache.
        beta: sharpness of its similarity.
    """

    rule = "closed form"
    needs_every_class = True
    late_grid: ClassVar = {
        "alpha": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
        "beta": (0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0),
    }
    keys: Tensor
    labels: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(
        self, problem: Problem, *, alpha: float = 1.0, beta: float = 5.5, views: int = 10, least_area: float = 0.5
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self._setting("alpha", alpha)
        self._setting("beta", beta)
        self._hold(torch.zeros(problem.num_images, problem.width))
        self.register_buffer("labels", torch.zeros(problem.num_images, dtype=torch.long))

    def _hold(self, keys: Tensor) -> None:
        self.register_buffer("keys", keys)

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        affinity = torch.exp(-self.beta * (1 - features @ self.keys.T))
        values = F.one_hot(self.labels, self.num_classes).to(affinity)
        return cosine_logits(self.scale, features, given(text)) + self.alpha * (affinity @ values)

    @torch.no_grad()
    def learn(self, support: Support) -> None:
        self.keys.copy_(support.mean_views())
        self.labels.copy_(support.labels)


class TrainedKeys(TipAdapter):
    """A Tip-Adapter whose keys are parameters."""

    def _hold(self, keys: Tensor) -> None:
        self.keys = nn.Parameter(keys)
