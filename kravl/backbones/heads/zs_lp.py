"""ZS-LP: a cosine classifier that starts as zero-shot (Silva-Rodriguez et al., CVPR 2024, 2312.12730)."""

import torch
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits, given


class ZeroShotLinearProbe(Head):
    """Cosine of the feature and a free prototype of each class, which starts as its text feature.

    Every view counts as an image.

    Args:
        lr: of SGD with momentum 0.9, after an epoch at 1e-5.
    """

    rule = "steps"
    starts_at_zero_shot = True

    def __init__(
        self,
        problem: Problem,
        *,
        lr: float = 0.1,
        epochs: int = 300,
        batch_size: int = 256,
        views: int = 20,
        least_area: float = 0.08,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.lr, self.epochs, self.batch_size = lr, epochs, batch_size
        self.prototypes = nn.Parameter(torch.clone(given(problem.text)))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, features, self.prototypes)

    def learn(self, support: Support) -> None:
        every = support.every_view()
        each = -(-len(every.labels) // self.batch_size)
        descend(self, every, Descent("sgd", self.lr, self.epochs, None, self.batch_size, warmup=each))
