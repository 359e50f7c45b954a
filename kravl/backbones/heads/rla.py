"""RLA: regularised linear adapter on the image feature (Fahes et al., 2025, https://arxiv.org/abs/2410.05270)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given


class RLA(Head):
    """Cosine of the text feature and A f, A from the identity, + penalty * ||A - I||²_F: ProLIP's black-box form.

    Args:
        strength: of the penalty; None is one over the shots, the paper's setting without validation.
        lr: of Adam on all images at once.
    """

    rule = "full batch"
    starts_at_zero_shot = True
    grid: ClassVar = {"lr": (1e-2, 1e-3, 1e-4, 1e-5), "strength": (None, 10.0, 1.0, 0.1, 0.01, 1e-3, 0.0)}

    def __init__(
        self,
        problem: Problem,
        *,
        strength: float | None = None,
        lr: float = 1e-3,
        steps: int = 300,
        views: int = 10,
        least_area: float = 0.08,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.strength, self.lr, self.steps = strength, lr, steps
        self.matrix = nn.Parameter(torch.eye(problem.width))
        self._weight = 0.0

    def image_features(self, features: Tensor) -> Tensor:
        return F.normalize(features @ self.matrix.T, dim=-1)

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, self.image_features(features), given(text))

    def penalty(self, text: Tensor | None) -> Tensor:
        one = torch.eye(len(self.matrix), dtype=self.matrix.dtype, device=self.matrix.device)
        return self._weight * (self.matrix - one).square().sum()

    def learn(self, support: Support) -> None:
        shots = int(support.counts(self.num_classes).max())
        self._weight = 1 / shots if self.strength is None else self.strength
        descend(self, support, Descent("adam", self.lr, steps=self.steps, eps=1e-4))
