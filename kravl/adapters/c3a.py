"""C3A: circulant blocks (Chen et al., C3A, ACL 2025, https://arxiv.org/abs/2407.19342)."""

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes, common_divisors
from kravl.adapters.dense import DenseAdapter

BLOCKS = range(8, 129)  # whose transforms are faster than the dense product, 2 to 3 times at 768 x 768 on a CPU


class C3A(DenseAdapter):
    """ΔW is a grid of circulant b x b blocks, entry (i, k) of each is kernel[(k - i) mod b] / in, zero at the start.

    ``block`` b divides both sides; it has out * in / b parameters, so that a larger block is a smaller adapter. It may
    be a multiple of KRAdapter's number of parameters, such as "1x". Zero is PEFT's ``init_weights=True``; its default,
    Xavier-uniform, would not start at the pretrained model.

    The kernels' gradient is a correlation of dL/dy with x within blocks: a product of their Fourier transforms, with
    2 / b of the operations of the dense one. In half precision they would be too coarse, and the dense one is fast.

    Raises:
        InputError: ``block`` does not divide both sides.
    """

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

    def pull(self, weight: Tensor, gradient: Tensor, x: Tensor) -> Mapping[str, Tensor]:
        if self.kernel.shape[2] not in BLOCKS or x.dtype != self.dtype:
            return super().pull(weight, gradient, x)
        rows, columns, b = self.kernel.shape
        basis, inverse = fourier_basis(b, x.dtype, x.device)

        def transformed(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
            """Real and imaginary parts, each (frequencies, tokens, count)."""
            real, imaginary = (basis @ matrix.reshape(-1, b).T).view(2, -1, len(matrix), count)
            return real, imaginary

        (y_real, y_imaginary), (x_real, x_imaginary) = transformed(gradient, rows), transformed(x, columns)
        real = torch.baddbmm(y_real.mT @ x_real, y_imaginary.mT, x_imaginary)  # of the conjugate of the first
        imaginary = torch.baddbmm(y_real.mT @ x_imaginary, y_imaginary.mT, x_real, alpha=-1)
        kernel = inverse @ torch.cat([real, imaginary]).flatten(1)  # (b, rows * columns)
        scale = self.scale / self.in_features
        return {"kernel": kernel.view(b, rows, columns).permute(1, 2, 0).mul(scale).contiguous()}


@lru_cache(maxsize=16)
def fourier_basis(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The discrete Fourier transform of real vectors of ``size`` as a matrix (2 f, size), and its inverse.

    Its rows are the real parts of the f = size // 2 + 1 frequencies, then the imaginary ones. For small sizes a product
    with it is faster than the fast transform.
    """
    frequencies, steps = torch.arange(size // 2 + 1, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(frequencies, steps)
    basis = torch.cat([angles.cos(), -angles.sin()])
    mirrored = torch.where((frequencies == 0) | (2 * frequencies == size), 1.0, 2.0).repeat(2)
    inverse = (basis * mirrored.unsqueeze(1) / size).T
    return basis.to(device, dtype), inverse.to(device, dtype).contiguous()
