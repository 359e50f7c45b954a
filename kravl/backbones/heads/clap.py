"""CLAP: class-adaptive linear probe (Silva-Rodriguez et al., CVPR 2024, https://arxiv.org/abs/2312.12730)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kravl.backbones.heads.head import Problem, Support, cosine_logits, given
from kravl.backbones.heads.zs_lp import ZeroShotLinearProbe


class CLAP(ZeroShotLinearProbe):
    """ZS-LP + the mean over classes of lambda_k ||w_k - t_k||^2.

    lambda_k is the mean probability that zero-shot, with the scale of its logits, gives class k on that class's own
    images; it is constant during training (the paper's adaptive form is another method). The published grid search
    goes by test accuracy; there is none here.
    """

    needs_every_class = True
    multipliers: Tensor

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
        super().__init__(problem, lr=lr, epochs=epochs, batch_size=batch_size, views=views, least_area=least_area)
        self.register_buffer("multipliers", torch.zeros(problem.num_classes))

    def penalty(self, text: Tensor | None) -> Tensor:
        return (self.multipliers * (self.prototypes - given(text)).square().sum(dim=1)).mean()

    def learn(self, support: Support) -> None:
        every = support.every_view()
        with torch.no_grad():
            zero_shot = cosine_logits(self.scale, every.first_views(), given(support.text)).softmax(dim=1)
            members = F.one_hot(every.labels, self.num_classes).to(zero_shot)
            self.multipliers.copy_((zero_shot * members).sum(dim=0) / members.sum(dim=0))
        super().learn(support)
