"""CLIP-Adapter: a bottleneck on the image feature (Gao et al., IJCV 2024, https://arxiv.org/abs/2110.04544)."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given


class CLIPAdapter(Head):
    """Cosine of the text feature and ratio * MLP(f) + (1 - ratio) * f, MLP: d -> d / reduction -> d with two ReLUs.

    Without biases the MLP is homogeneous: unit features give the logits of the published code's raw ones.

    Args:
        ratio: published: 0.2 for most sets, searched for each.
        reduction: of the width within.
        lr: of SGD with momentum 0.9.
    """

    rule = "steps"
    grid: ClassVar = {"ratio": (0.2, 0.4, 0.6, 0.8)}
    ratio: Tensor

    def __init__(  # noqa: PLR0913 (each is a setting of head)
        self,
        problem: Problem,
        *,
        ratio: float = 0.2,
        reduction: int = 4,
        lr: float = 1e-2,
        epochs: int = 200,
        batch_size: int = 32,
        views: int = 10,
        least_area: float = 0.08,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self._setting("ratio", ratio)
        self.reduction, self.lr, self.epochs, self.batch_size = reduction, lr, epochs, batch_size
        within = max(1, problem.width // reduction)
        self.down = nn.Linear(problem.width, within, bias=False)
        self.up = nn.Linear(within, problem.width, bias=False)

    def image_features(self, features: Tensor) -> Tensor:
        bottleneck = F.relu(self.up(F.relu(self.down(features))))
        return F.normalize(self.ratio * bottleneck + (1 - self.ratio) * features, dim=-1)

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, self.image_features(features), given(text))

    def learn(self, support: Support) -> None:
        descend(self, support, Descent("sgd", self.lr, self.epochs, None, self.batch_size))
