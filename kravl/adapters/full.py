"""Full fine-tuning of a weight matrix, written as an adapter so that every diagnostic applies to it."""

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter


class Full(Adapter):
    """ΔW is a free matrix. Weight decay therefore pulls W towards its pretrained value, not towards zero."""

    def __init__(self, out_features: int, in_features: int, dropout: float = 0.0) -> None:
        super().__init__(out_features, in_features, dropout=dropout)
        self.delta = nn.Parameter(torch.zeros(out_features, in_features))

    def delta_weight(self) -> Tensor:
        return self.delta

    def update(self, weight: Tensor) -> Tensor:
        return self.delta  # its scale is 1
