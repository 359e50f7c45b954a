"""ProLIP: the visual projection, held near the pretrained one (Fahes et al., 2025, https://arxiv.org/abs/2410.05270)."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given


class ProLIP(Head):
    """Cosine of the text feature and f P, f the feature before the projection, P from the pretrained projection P0.

    + strength * ||P - P0||²_F, without which the published accuracies collapse. A step sees one view of every image.

    Args:
        strength: of the penalty; None is one over the shots, the paper's setting without validation.
        lr: of Adam (eps 1e-4) on all images at once; published for ViT-B/16: 1e-5.
    """

    rule = "full batch"
    before_projection = True
    starts_at_zero_shot = True
    grid: ClassVar = {"lr": (1e-2, 1e-3, 1e-4, 1e-5), "strength": (None, 10.0, 1.0, 0.1, 0.01, 1e-3, 0.0)}
    pretrained: Tensor

    def __init__(
        self,
        problem: Problem,
        *,
        strength: float | None = None,
        lr: float = 1e-5,
        steps: int = 300,
        views: int = 300,
        least_area: float = 0.08,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.strength, self.lr, self.steps = strength, lr, steps
        self.register_buffer("pretrained", given(problem.projection).detach().clone(), persistent=False)
        self.projection = nn.Parameter(self.pretrained.clone())
        self._weight = 0.0

    def image_features(self, features: Tensor) -> Tensor:
        return F.normalize(features @ self.projection, dim=-1)

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, self.image_features(features), given(text))

    def penalty(self, text: Tensor | None) -> Tensor:
        return self._weight * (self.projection - self.pretrained).square().sum()

    def learn(self, support: Support) -> None:
        shots = int(support.counts(self.num_classes).max())
        self._weight = 1 / shots if self.strength is None else self.strength
        descend(self, support, Descent("adam", self.lr, steps=self.steps, eps=1e-4))
