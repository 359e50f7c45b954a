"""PiSSA: LoRA that starts at the leading singular directions (Meng et al., NeurIPS 2024, https://arxiv.org/abs/2404.02948)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter
from kravl.adapters.svd import leading_directions


class PiSSA(LowRankAdapter):
    """ΔW = (B0 + B)(A0 + A) - B0 A0; scale * B0 A0 is the best rank-r approximation of the pretrained weight.

    The paper trains B0 + B and A0 + A around the residual of the weight. Here their changes B (out, r) and A (r, in)
    train from zero, which is the same with AdamW but for weight decay: it pulls towards the pretrained weight. ΔW is
    B0 A + B (A0 + A), of rank up to 2 r, and exactly zero at the start. B0 and A0, √S on either side, follow from the
    weight and are not stored in checkpoints. ``rank`` may be a multiple of KRAdapter's number of parameters, as "1x".

    Raises:
        InputError: ``rank`` is less than 1, or more than the shorter side.
    """

    def __init__(
        self, out_features: int, in_features: int, rank: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.rank = rank
        r = self.legal_sizes().choose(rank, self.shape)
        self.inner = 2 * r
        self.a = nn.Parameter(torch.zeros(r, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, r))
        self.start_a = nn.Parameter(torch.zeros(r, in_features), requires_grad=False)
        self.start_b = nn.Parameter(torch.zeros(out_features, r), requires_grad=False)

    def legal_sizes(self) -> Sizes:
        return Sizes("rank", range(1, min(self.shape) + 1), lambda rank: rank * sum(self.shape))

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        u, s, vh = leading_directions(weight, len(self.a))
        root = (s / self.scale).sqrt()
        self.start_b.data.copy_(u * root)
        self.start_a.data.copy_(root.unsqueeze(1) * vh)

    def factors(self) -> tuple[Tensor, Tensor]:
        return torch.cat([self.start_b, self.b], 1), torch.cat([self.a, self.start_a + self.a])

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.b.requires_grad, self.a.requires_grad

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        r = len(self.a)
        grad_a = None if grad_down is None else grad_down[:r] + grad_down[r:]
        grad_b = None if grad_up is None else grad_up[r:].T
        return [gradient for gradient in (grad_a, grad_b) if gradient is not None]
