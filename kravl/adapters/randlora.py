"""RandLoRA: trained scalings of frozen random bases (Albert et al., ICLR 2025, https://arxiv.org/abs/2502.00987)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.base import check_rank
from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter


class RandLoRA(LowRankAdapter):
    """ΔW = Σ_i B_i diag(λ_i) A diag(γ_i) over ceil(m / r) bases of rank r, scaled by alpha / r; λ and γ train.

    m is the shorter and M the longer side. A (r, m) and all B_i side by side (M, ceil(m / r) * r) are frozen, standard
    normal and determined by ``seed``: they are not stored in checkpoints, and sites of the same shape share them. λ
    starts at zero and γ (n, m) at 1 / its own longer side, as in the authors' PEFT code. If the shorter side is the
    output, ΔW is transposed.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        alpha: float,
        seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_rank(rank)
        super().__init__(out_features, in_features, alpha / rank, dropout)
        self.rank, self.alpha, self.seed = rank, alpha, seed
        short, long = sorted((out_features, in_features))
        num = math.ceil(short / rank)
        generator = torch.Generator().manual_seed(seed)
        self.bases_b = nn.Parameter(torch.randn(long, num * rank, generator=generator), requires_grad=False)
        self.bases_a = nn.Parameter(torch.randn(rank, short, generator=generator), requires_grad=False)
        lam, gamma = self.start(num, short)
        self.lam = nn.Parameter(torch.full((num, rank), lam))
        self.gamma = nn.Parameter(torch.full((num, short), gamma))
        self.inner = num * rank

    def legal_sizes(self) -> Sizes:
        short, long = sorted(self.shape)
        return Sizes.of("rank", range(1, long + 1), lambda rank: math.ceil(short / rank) * (rank + short))

    def start(self, num: int, short: int) -> tuple[float, float]:
        """Initial values of λ (num, r) and γ (num, short), whose product is zero."""
        return 0.0, 1 / max(num, short)

    @property
    def trained(self) -> tuple[bool, bool]:
        trains, tall = self.lam.requires_grad or self.gamma.requires_grad, self.out_features > self.in_features
        return trains and not tall, trains and tall

    def factors(self) -> tuple[Tensor, Tensor]:
        scaled = torch.mul(self.gamma.unsqueeze(1), self.bases_a).mul_(self.lam.unsqueeze(2)).flatten(0, 1)
        return (self.bases_b, scaled) if self.out_features > self.in_features else (scaled.T, self.bases_b.T)

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        grad_factor = grad_up if grad_down is None else grad_down
        assert grad_factor is not None
        scaled = grad_factor.view(*self.lam.shape, -1).mul_(self.bases_a)  # (num, r, m)
        grad_lam, grad_gamma = (scaled @ self.gamma.unsqueeze(2), self.lam.unsqueeze(1) @ scaled)
        pairs = ((self.lam, grad_lam.squeeze(2)), (self.gamma, grad_gamma.squeeze(1)))
        return [gradient for parameter, gradient in pairs if parameter.requires_grad]


class RandLoRAVisionLanguage(RandLoRA):
    """RandLoRA as the authors' vision-language script starts it: λ (n, r) at 1 / its longer side, γ at zero."""

    def start(self, num: int, short: int) -> tuple[float, float]:
        return 1 / max(num, self.rank), 0.0
