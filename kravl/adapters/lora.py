"""LoRA: a rank-r update (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.base import check_rank
from kravl.adapters.budget import Sizes
from kravl.adapters.low_rank import LowRankAdapter


class LoRA(LowRankAdapter):
    """ΔW = B A with B (out, r) zero and A (r, in) Kaiming-uniform, scaled by alpha / r.

    ``rank_stabilised`` scales by alpha / sqrt(r) (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732), as CLIP-LoRA
    does. ``dropout`` drops entries of the adapter's input, as there; of a weight that its
    module does not multiply itself, such as a bare projection, it drops columns of ΔW.

    Examples:
        >>> from kravl import LoRA
        >>> adapter = LoRA(out_features=768, in_features=768, rank=16, alpha=16)
        >>> tuple(adapter.delta_weight().shape)
        (768, 768)
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        alpha: float,
        rank_stabilised: bool = False,
        dropout: float = 0.0,
    ) -> None:
        check_rank(rank)
        scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
        super().__init__(out_features, in_features, scale, dropout)
        self.rank, self.alpha, self.rank_stabilised = rank, alpha, rank_stabilised
        self.inner = rank
        self.input_dropout = nn.Dropout(dropout)  # a module, so that a search for what is random in a model finds it
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        return Sizes.ranks(self.shape, sum(self.shape))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.b, self.a

    @property
    def trained(self) -> tuple[bool, bool]:
        return self.b.requires_grad, self.a.requires_grad

    def pull_back(self, grad_up: Tensor | None, grad_down: Tensor | None) -> Sequence[Tensor | None]:
        grad_b = None if grad_up is None else grad_up.T
        return [gradient for gradient in (grad_down, grad_b) if gradient is not None]

    def draw_mask(self, x: Tensor | None = None) -> Tensor | None:
        if x is None or not self.input_dropout.training or self.dropout == 0.0:
            return super().draw_mask(x)
        keep = torch.empty((x[..., 0].numel(), x.shape[-1]), dtype=torch.bool, device=x.device)
        return keep.bernoulli_(1.0 - self.dropout)
