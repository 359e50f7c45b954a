"""C3A: circulant blocks (Chen et al., C3A, ACL 2025, https://arxiv.org/abs/2407.19342)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes, common_divisors
from kravl.adapters.dense import DenseAdapter


class C3A(DenseAdapter):
    """ΔW is a grid of circulant b x b blocks, entry (i, k) of each is kernel[(k - i) mod b] / in, zero at the start.

    ``block`` b divides both sides; it has out * in / b parameters, so that a larger block is a smaller adapter. It may
    be a multiple of KRAdapter's number of parameters, such as "1x". Zero is PEFT's ``init_weights=True``; its default,
    Xavier-uniform, would not start at the pretrained model.

    Raises:
        InputError: ``block`` does not divide both sides.
    """

    decays: ClassVar[Mapping[str, bool]] = {"kernel": True}

    def __init__(
        self, out_features: int, in_features: int, block: int | str = "1x", scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.block = block
        b = self.legal_sizes().choose(block, self.shape)
        self.kernel = nn.Parameter(torch.zeros(out_features // b, in_features // b, b))

    def legal_sizes(self) -> Sizes:
        entries = self.out_features * self.in_features
        return Sizes.of("block", common_divisors(*self.shape), lambda block: entries // block)

    def delta_weight(self) -> Tensor:
        b = self.kernel.shape[2]
        steps = torch.arange(b, device=self.kernel.device)
        blocks = self.kernel[:, :, (steps - steps.unsqueeze(1)) % b]  # (rows, columns, b, b)
        return blocks.transpose(1, 2).reshape(self.shape) / self.in_features

    def write(self, weight: Tensor, out: Tensor) -> None:
        rows, columns, b = self.kernel.shape
        twice, grid = torch.cat([self.kernel, self.kernel], 2), (rows, b, columns, b)
        weights, target, scale = weight.reshape(grid), out.view(grid), self.scale / self.in_features
        for i in range(b):  # row i of every block is the kernel, shifted by i
            torch.add(weights[:, i], twice[:, :, b - i : 2 * b - i], alpha=scale, out=target[:, i])

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        rows, columns, b = self.kernel.shape
        twice = self.kernel.new_zeros(rows, columns, 2 * b)
        grid = grad_update.view(rows, b, columns, b)
        for i in range(b):
            twice[:, :, b - i : 2 * b - i] += grid[:, i]
        return {"kernel": twice[:, :, :b].add_(twice[:, :, b:]).mul_(self.scale / self.in_features)}
