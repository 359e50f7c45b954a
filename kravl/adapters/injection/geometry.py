"""How a kernel moves over a map, and products of maps with the thin kernels between low-rank factors."""

from typing import NamedTuple

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Geometry(NamedTuple):
    """How a kernel moves over a map: a number for each spatial dimension, and how many groups of channels there are."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def positions(self, x: Tensor, kernel: Tensor) -> int:
        """Positions of the output, of all maps together."""
        total: int = x.shape[0]
        sizes = zip(x.shape[2:], kernel.shape[2:], self.stride, self.padding, self.dilation, strict=True)
        for size, width, stride, padding, dilation in sizes:
            total *= (size + 2 * padding - dilation * (width - 1) - 1) // stride + 1
        return total

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """y (b, out, ...) of x (b, in, ...) and ``kernel`` (out, in / groups, ...)."""
        zeros = (0,) * len(self.stride)
        return torch.convolution(x, kernel, bias, self.stride, self.padding, self.dilation, False, zeros, self.groups)

    def gradients(self, gradient: Tensor, x: Tensor, kernel: Tensor, needed: tuple[bool, bool, bool]) -> Gradients:
        """Those of x, kernel and bias where ``needed``, from that of y; of the others only the shapes are read."""
        zeros = (0,) * len(self.stride)
        found: Gradients = torch.ops.aten.convolution_backward(
            *(gradient, x, kernel, [kernel.shape[0]], self.stride, self.padding, self.dilation),
            *(False, zeros, self.groups, needed),
        )
        return found

    def thin(self, x: Tensor, kernel: Tensor) -> Tensor:
        """As `convolve`, for a kernel of few output channels; of one position, it is a matrix product."""
        return mix(kernel.view(1, *kernel.shape[:2]), x) if self._mixes(kernel) else self.convolve(x, kernel)

    def thin_gradients(
        self, gradient: Tensor, x: Tensor, kernel: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Those of x and the unfolded kernel (out, in / groups * ...) of `thin`, where ``needed``."""
        if self._mixes(kernel):
            matrix = kernel.view(1, *kernel.shape[:2])
            grad_x = mix(matrix.mT, gradient) if needed[0] else None
            return grad_x, correlate(gradient, x, 1)[0] if needed[1] else None
        grad_x, grad_kernel, _ = self.gradients(gradient, x, kernel, (*needed, False))
        return grad_x, None if grad_kernel is None else grad_kernel.flatten(1)

    def _mixes(self, kernel: Tensor) -> bool:
        """Whether the channels of a position go to the channels of the same position, all to all."""
        still = all(step == 1 for step in self.stride) and not any(self.padding)
        return still and self.groups == 1 and all(width == 1 for width in kernel.shape[2:])


# A CPU's kernels for convolutions copy a map that is not channels_last to another layout first, which takes longer than
# a thin product of it: of 32 maps of 56 x 56, the gradients of a kernel 16 -> 256 of one position took 159 ms, as
# matrix products 38 ms; in channels_last, 40 and 44 ms.


def mix(matrices: Tensor, x: Tensor) -> Tensor:
    """``matrices`` (groups, out, in) times the channels of their group at each position: (b, groups * out, ...).

    Args:
        x: (b, groups * in, ...).
    """
    if len(matrices) > 1:
        y = matrices @ x.flatten(2).unflatten(1, (len(matrices), -1))
        return y.flatten(1, 2).unflatten(2, x.shape[2:])
    if _is_channels_last(x):
        return (x.movedim(1, -1) @ matrices[0].T).movedim(-1, 1)
    # bmm by name: of a matrix times many, matmul makes one product and copies the map for it
    return torch.bmm(matrices.expand(x.shape[0], -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])


def correlate(a: Tensor, b: Tensor, groups: int) -> Tensor:
    """Products of channels of ``a`` (n, groups * p, ...) and ``b`` (n, groups * q, ...), summed: (groups, p, q).

    Those of each map are summed in fp32 at least: halves would be rounded twice.
    """
    if groups == 1 and _is_channels_last(a) and _is_channels_last(b):
        tokens = a.movedim(1, -1).flatten(0, -2).T @ b.movedim(1, -1).flatten(0, -2)
        return tokens.unsqueeze(0)
    left, right = (x.flatten(2).unflatten(1, (groups, -1)) for x in (a, b))
    return (left @ right.mT).sum(0, dtype=torch.promote_types(a.dtype, torch.float32))


def _is_channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous() and not x.is_contiguous()
