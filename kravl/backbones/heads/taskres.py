"""TaskRes: a free residual on the text features (Yu et al., CVPR 2023, https://arxiv.org/abs/2211.10277)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given

MANY = 8  # shots from which the published length doubles


class TaskRes(Head):
    """Cosine of the feature and t + alpha * x, x zero at the start. The "enhanced base" is another method.

    Args:
        alpha: weight of the residual; published: 0.5, and 1 for Oxford Flowers.
        lr: published: 2e-3, for ImageNet 2e-4.
        epochs: None is the published length: 100 below 8 shots, 200 from there.
    """

    rule = "steps"
    starts_at_zero_shot = True
    grid: ClassVar = {"alpha": (0.1, 0.3, 0.5, 0.7, 1.0)}
    alpha: Tensor

    def __init__(  # noqa: PLR0913 (each is a setting of head)
        self,
        problem: Problem,
        *,
        alpha: float = 0.5,
        lr: float = 2e-3,
        epochs: int | None = None,
        batch_size: int = 256,
        views: int = 10,
        least_area: float = 0.08,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self._setting("alpha", alpha)
        self.lr, self.epochs, self.batch_size = lr, epochs, batch_size
        self.residual = nn.Parameter(torch.zeros(problem.num_classes, problem.width))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, features, given(text) + self.alpha * self.residual)

    def learn(self, support: Support) -> None:
        many = int(support.counts(self.num_classes).max()) >= MANY
        epochs = self.epochs or (200 if many else 100)
        each = -(-len(support.labels) // self.batch_size)
        descend(self, support, Descent("adam", self.lr, epochs, None, self.batch_size, warmup=each))
