"""FourierFT: some entries of the update's spectrum trained (Gao et al., ICML 2024, https://arxiv.org/abs/2405.03003)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.dense import DenseAdapter, random_positions


class FourierFT(DenseAdapter):
    """ΔW is the real part of the inverse 2-D Fourier transform of a spectrum with ``num_coefficients`` real entries.

    They are at random positions of the (out, in) spectrum, determined by ``seed``, and start at zero; the others are
    zero. Coefficient c at (u, v) adds c cos(2π (u i / out + v j / in)) / (out * in) to entry (i, j), so that the two at
    (u, v) and (-u, -v) add the same. ``scale`` is the paper's α, 300 for its ViTs. ``num_coefficients`` may be a
    multiple of KRAdapter's number of parameters, such as "1x". The transform runs in single precision or more.

    Raises:
        InputError: more coefficients than the matrix has entries, or less than 1.
    """

    decays: ClassVar[Mapping[str, bool]] = {"coefficients": True}

    def __init__(
        self,
        out_features: int,
        in_features: int,
        num_coefficients: int | str = "1x",
        seed: int = 777,
        scale: float = 300.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.num_coefficients, self.seed = num_coefficients, seed
        number = self.legal_sizes().choose(num_coefficients, self.shape)
        self.coefficients = nn.Parameter(torch.zeros(number))
        positions = random_positions(out_features * in_features, number, seed)
        places, share = half_spectrum(positions, self.shape)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("share", share, persistent=False)
        self.places: Tensor
        self.share: Tensor

    def legal_sizes(self) -> Sizes:
        return Sizes.numbers("num_coefficients", self.shape)

    def delta_weight(self) -> Tensor:
        dtype = torch.promote_types(self.coefficients.dtype, torch.float32)
        values = (self.coefficients.to(dtype) * self.share.to(dtype)).expand(2, -1)
        columns = self.in_features // 2 + 1
        spectrum = values.new_zeros(self.out_features * columns).index_put((self.places,), values, accumulate=True)
        complex_spectrum = torch.complex(spectrum, torch.zeros_like(spectrum)).view(self.out_features, columns)
        return torch.fft.irfft2(complex_spectrum, s=self.shape).to(self.coefficients.dtype)

    def write(self, weight: Tensor, out: Tensor) -> None:
        torch.add(weight, self.delta_weight(), alpha=self.scale, out=out)

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        dtype = torch.promote_types(grad_update.dtype, torch.float32)
        spectrum = torch.fft.rfft2(grad_update.to(dtype)).real.reshape(-1)
        share = self.scale / (self.out_features * self.in_features)
        return {"coefficients": spectrum[self.places[0]].mul_(share).to(self.coefficients.dtype)}


def half_spectrum(positions: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where a real coefficient at each of ``positions`` (n,) of a spectrum goes in the half that `irfft2` reads.

    That half has the columns 0 to in // 2; a coefficient beyond is the mirrored one. The transform adds the mirror of
    every column but the first and, for an even number, the last: half of the value is put there at one place (twice a
    quarter), in the others half at each of the two. Returns places (2, n) and the share (n,) of the value at each.
    """
    out, columns = shape
    u, v = positions // columns, positions % columns
    mirrored = v > columns // 2
    u, v = torch.where(mirrored, (out - u) % out, u), torch.where(mirrored, columns - v, v)
    has_mirror_column = (v == 0) | (2 * v == columns)
    partner = torch.where(has_mirror_column, (out - u) % out, u)
    width = columns // 2 + 1
    share = torch.where(has_mirror_column, 0.5, 0.25)
    return torch.stack([u * width + v, partner * width + v]), share
