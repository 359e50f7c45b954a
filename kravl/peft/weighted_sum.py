"""A weighted sum of updates as one adapter: exact, where adding up the factors would not be."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter


class WeightedSum(Adapter):
    """ΔW = Σ w_k s_k ΔW_k over adapters ``terms`` of one shape, with their scales s_k and ``weights`` w_k.

    A sum of Khatri-Rao products is none: the sum keeps the factors of each.
    """

    def __init__(self, terms: Sequence[Adapter], weights: Sequence[float]) -> None:
        super().__init__(terms[0].out_features, terms[0].in_features)
        assert len(terms) == len(weights), (len(terms), len(weights))
        self.terms, self.weights = nn.ModuleList(terms), list(weights)

    def delta_weight(self) -> Tensor:
        return torch.stack([w * t.scale * t.delta_weight() for w, t in self._weighted()]).sum(0)

    def delta_columns(self, index: Tensor) -> Tensor:
        return torch.stack([w * t.scale * t.delta_columns(index) for w, t in self._weighted()]).sum(0)

    def _weighted(self) -> list[tuple[float, Adapter]]:
        return list(zip(self.weights, self.terms, strict=True))  # type: ignore[arg-type]
