"""LP++: a linear probe blended with text, at step sizes from Lipschitz bounds (Huang et al., CVPR 2024, 2404.02285)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.fitting import CHECKED_EVERY
from kravl.backbones.heads.head import Head, Problem, Support, given
from kravl.runtime.signals import raise_if_stopped

START = 250.0  # of the blending, times the mean cosine of images with their class's text
BLEND_EVERY = 10  # steps


class LPPlusPlus(Head):
    """Logits f·w_k + b_k + alpha_k * f·t_k, without a scale, hence poorly calibrated; nothing to set by validation.

    w starts as the sums of the classes' features, alpha as 250 times the mean over classes of their mean cosine. w and
    b take steps of 4N / lambda_max(FᵀF) with momentum 0.9, alpha steps of N / (4 max_k sum_i (f_i·t_k)²) every tenth
    time. The published code chooses the step on validation images; here it is the last.

    Args:
        steps: on all images at once.
        accumulate: never zero the gradient of alpha, as the published code.
    """

    rule = "full batch"
    needs_every_class = True
    grid: ClassVar = {"steps": (50, 100, 150, 200, 250, 300)}

    def __init__(
        self,
        problem: Problem,
        *,
        steps: int = 300,
        accumulate: bool = False,
        views: int = 10,
        least_area: float = 0.5,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.steps, self.accumulate = steps, accumulate
        self.weight = nn.Parameter(torch.zeros(problem.num_classes, problem.width))
        self.bias = nn.Parameter(torch.zeros(problem.num_classes))
        self.blend = nn.Parameter(torch.zeros(problem.num_classes))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return features @ self.weight.T + self.bias + self.blend * (features @ given(text).T)

    def start(self, support: Support) -> tuple[float, float]:
        """Set weights and blending as they start; returns the step sizes of both."""
        features, text = support.mean_views(), given(support.text)
        cosines, members = features @ text.T, F.one_hot(support.labels, self.num_classes).to(features)
        with torch.no_grad():
            self.weight.copy_(members.T @ features)
            self.bias.zero_()
            self.blend.fill_(START * ((members * cosines).sum(dim=0) / members.sum(dim=0)).mean())
        count = len(support.labels)
        largest = torch.linalg.eigvalsh(features.T @ features).max()
        return 4 * count / float(largest), count / (4 * float(cosines.square().sum(dim=0).max()))

    def learn(self, support: Support) -> None:
        step_size, blend_step = self.start(support)
        optimizer = torch.optim.SGD([self.weight, self.bias], step_size, momentum=0.9)
        features, text = support.mean_views(), given(support.text)
        self.blend.grad = None
        for step in range(1, self.steps + 1):
            if step % CHECKED_EVERY == 0:
                raise_if_stopped()
            if not self.accumulate:
                self.blend.grad = None
            optimizer.zero_grad()
            F.cross_entropy(self(features, text), support.labels).backward()
            optimizer.step()
            if step % BLEND_EVERY == 0 and self.blend.grad is not None:
                self.blend.data.sub_(self.blend.grad, alpha=blend_step)
        self.blend.grad = None
