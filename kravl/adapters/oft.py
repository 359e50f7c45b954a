"""OFT: rotations of groups of inputs (Qiu et al., NeurIPS 2023, https://arxiv.org/abs/2306.07280)."""

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.rotation import Factors, InputTransform
from kravl.runtime.errors import InputError


class OFT(InputTransform):
    """The adapted weight is W Rᵀ, with one rotation of each ``block`` b of inputs on the diagonal of R.

    R is Cayley's transform (I + Q)(I - Q)⁻¹ of a skew-symmetric Q, whose upper triangles train from zero: in * (b - 1)
    / 2 parameters. With ``terms`` it is the Neumann series of OFTv2 (https://arxiv.org/abs/2506.19847), I + 2 Q + 2 Q²
    + ... + Q^(terms - 1), orthogonal to that order; None computes it exactly. ``block`` may be a multiple of
    KRAdapter's number of parameters, such as "1x".

    Raises:
        InputError: ``block`` does not divide the number of inputs, or is 1; ``terms`` is less than 2.
    """

    def __init__(
        self, out_features: int, in_features: int, block: int | str = "1x", terms: int | None = 5, dropout: float = 0.0
    ) -> None:
        super().__init__(out_features, in_features, dropout=dropout)
        if terms is not None and terms < 2:
            raise InputError(
                f"terms must be a whole number of at least 2, or null for the exact transform, not {terms}"
            )
        self.block, self.terms = block, terms
        b = self.legal_sizes().choose(block, self.shape)
        self.triangles = nn.Parameter(torch.zeros(in_features // b, b * (b - 1) // 2))
        self.register_buffer("places", torch.triu_indices(b, b, 1, device="cpu"), persistent=False)
        self.places: Tensor
        self.side = b

    def legal_sizes(self) -> Sizes:
        divisors = [number for number in range(2, self.in_features + 1) if self.in_features % number == 0]
        return Sizes("block", divisors or [1], lambda block: self.in_features * (block - 1) // 2)

    def factors(self) -> Factors:
        """Rᵀ - I of each group, (groups, b, b): R of -Q."""
        rows, columns = self.places
        upper = self.triangles.new_zeros(len(self.triangles), self.side, self.side)
        upper = upper.index_put(
            (torch.arange(len(upper), device=rows.device).unsqueeze(1), rows, columns), self.triangles
        )
        q = upper.mT - upper
        if self.terms is None:
            one = torch.eye(self.side, dtype=q.dtype, device=q.device)
            return (torch.linalg.solve(one - q, 2 * q),)
        power, total = q, 2 * q if self.terms > 2 else q
        for degree in range(2, self.terms):
            power = power @ q
            total = total + (power if degree == self.terms - 1 else 2 * power)
        return (total,)

    def times(self, rows: Tensor, factors: Factors) -> Tensor:
        groups = rows.reshape(len(rows), -1, self.side)  # (n, groups, b)
        if torch.is_grad_enabled():
            return torch.einsum("ngb,gbc->ngc", groups, factors[0]).reshape(rows.shape)
        out = torch.empty_like(groups)  # written in this order, which spares two copies
        torch.bmm(groups.transpose(0, 1), factors[0], out=out.transpose(0, 1))
        return out.view(rows.shape)

    def factor_gradients(self, left: Tensor, right: Tensor, factors: Factors) -> Factors:
        left, right = (matrix.reshape(len(matrix), -1, self.side).transpose(0, 1) for matrix in (left, right))
        return (left.mT @ right,)
