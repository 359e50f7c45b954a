"""LoHa: the entrywise product of two low-rank matrices (Hyeon-Woo et al., FedPara, ICLR 2022, https://arxiv.org/abs/2108.06098)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.dense import DenseAdapter, row_chunks
from kravl.adapters.workspace import scratch
from kravl.runtime.errors import unknown


class LoHa(DenseAdapter):
    """ΔW = (B1 A1) ∘ (B2 A2), with B1, B2 (out, r) and A1, A2 (r, in): of rank up to r².

    ``init`` "kaiming" has B1, A1, B2 Kaiming-uniform and A2 zero, as PEFT does. "abba" (Singhal et al., ABBA, 2025,
    https://arxiv.org/abs/2505.14238) has U √S and √S Vᵀ of the r leading singular directions of the pretrained weight
    in B1 and A1, B2 zero and A2 Kaiming-uniform. ``rank`` may be a multiple of KRAdapter's number of parameters, such
    as "1x".

    The row-wise Khatri-Rao product of B1 and B2 times the column-wise one of A1 and A2 is the same update (PEFT's
    ``use_khatri_rao``). That is not KRAdapter, which has no second factor: its columns are Kronecker products of free
    vectors, and its rank is full.

    Raises:
        InputError: ``rank`` is less than 1, or with "abba" more than the shorter side; unknown ``init``.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int | str = "1x",
        scale: float = 1.0,
        init: str = "kaiming",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if init not in ("kaiming", "abba"):
            raise unknown("init", init, ("kaiming", "abba"))
        self.rank, self.init = rank, init
        r = self.legal_sizes().choose(rank, self.shape)
        self.b1, self.b2 = (nn.Parameter(torch.zeros(out_features, r)) for _ in range(2))
        self.a1, self.a2 = (nn.Parameter(torch.zeros(r, in_features)) for _ in range(2))
        drawn = (self.b1, self.a1, self.b2) if init == "kaiming" else (self.b1, self.a1, self.a2)
        for factor in drawn:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def legal_sizes(self) -> Sizes:
        most = min(self.shape) if self.init == "abba" else max(self.shape)
        return Sizes("rank", range(1, most + 1), lambda rank: 2 * rank * sum(self.shape))

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        if self.init == "abba":
            u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
            r = self.b1.shape[1]
            self.b1.data.copy_(u[:, :r] * s[:r].sqrt())
            self.a1.data.copy_(s[:r].sqrt().unsqueeze(1) * vh[:r])

    def delta_weight(self) -> Tensor:
        return (self.b1 @ self.a1) * (self.b2 @ self.a2)

    def write(self, weight: Tensor, out: Tensor) -> None:
        for rows in row_chunks(out):
            first, second = self._products(rows, out)
            torch.addcmul(weight[rows], first, second, value=self.scale, out=out[rows])

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        grads = {name: torch.zeros_like(getattr(self, name)) for name in ("b1", "b2", "a1", "a2")}
        for rows in row_chunks(grad_update):
            first, second = self._products(rows, grad_update)
            towards_first = second.mul_(grad_update[rows])
            torch.mm(towards_first, self.a1.T, out=grads["b1"][rows])
            grads["a1"].addmm_(self.b1[rows].T, towards_first)
            towards_second = first.mul_(grad_update[rows])
            torch.mm(towards_second, self.a2.T, out=grads["b2"][rows])
            grads["a2"].addmm_(self.b2[rows].T, towards_second)
        return {name: gradient.mul_(self.scale) for name, gradient in grads.items()}

    def _products(self, rows: slice, like: Tensor) -> tuple[Tensor, Tensor]:
        """The ``rows`` of B1 A1 and of B2 A2, valid until the next call."""
        shape = (len(self.b1[rows]), self.in_features)
        first, second = (scratch(name, shape, like, self.dtype) for name in ("first", "second"))
        return torch.mm(self.b1[rows], self.a1, out=first), torch.mm(self.b2[rows], self.a2, out=second)
