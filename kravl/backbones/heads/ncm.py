"""Nearest class mean (Mensink et al., TPAMI 2013, https://hal.science/hal-00817211)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kravl.backbones.heads.head import Head, Problem, Support, cosine_logits


class NearestClassMean(Head):
    """Cosine of the feature and the mean of each class's unit features: SimpleShot's without centring."""

    rule = "closed form"
    needs_text = False
    needs_every_class = True
    means: Tensor

    def __init__(self, problem: Problem, *, views: int = 10, least_area: float = 0.5) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.register_buffer("means", torch.zeros(problem.num_classes, problem.width))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return cosine_logits(self.scale, F.normalize(features, dim=-1), self.means)

    @torch.no_grad()
    def learn(self, support: Support) -> None:
        every = support.every_view()
        unit = F.normalize(every.first_views(), dim=-1)
        sums = torch.zeros_like(self.means).index_add_(0, every.labels, unit)
        self.means.copy_(sums / every.counts(self.num_classes)[:, None])
