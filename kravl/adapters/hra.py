"""HRA: a chain of reflections of the input (Yuan et al., NeurIPS 2024, https://arxiv.org/abs/2405.17484)."""

import math

import torch
from torch import Tensor, nn

from kravl.adapters.budget import Sizes
from kravl.adapters.rotation import Factors, InputTransform

SMALLEST = 1e-12  # norm of a vector that is normalised


class HRA(InputTransform):
    """The adapted weight is W H_1 ... H_r, with the Householder reflections H_i = I - 2 u_i u_iᵀ / |u_i|².

    The vectors, rows of U (r, in), start Kaiming-uniform in equal pairs, whose reflections cancel. With normalised u
    and v of a pair and e = u - v, theirs is I + L Rᵀ, L = [-2 u, 2 e], R = [e + |e|² v, v], which is exactly I for
    equal ones; and the product of all is I + L S Rᵀ, with S the inverse of I minus the part of Rᵀ L above its diagonal
    blocks. So all cost as much as a LoRA of rank r, and nothing of size (in, in) is made. ``rank`` is even, or a
    multiple of KRAdapter's number of parameters, such as "1x". The paper's variant that makes the vectors orthogonal is
    not here.

    Raises:
        InputError: ``rank`` is odd, or more than there are inputs.
    """

    def __init__(self, out_features: int, in_features: int, rank: int | str = "1x", dropout: float = 0.0) -> None:
        super().__init__(out_features, in_features, dropout=dropout)
        self.rank = rank
        r = self.legal_sizes().choose(rank, self.shape)
        # PEFT draws (in, r / 2), whose fan is r / 2
        start = nn.init.kaiming_uniform_(torch.empty(in_features, r // 2), a=math.sqrt(5))
        self.u = nn.Parameter(start.T.repeat_interleave(2, 0))

    def legal_sizes(self) -> Sizes:
        most = max(2, self.in_features)
        return Sizes("rank", range(2, most + 1, 2), lambda rank: rank * self.in_features)

    def factors(self) -> Factors:
        """L (in, r), S (r, r) and R (in, r)."""
        units = self.u / torch.linalg.vector_norm(self.u, dim=1, keepdim=True).clamp(min=SMALLEST)
        first, second = units[0::2], units[1::2]
        apart = first - second
        squares = apart.square().sum(1, keepdim=True)
        left = torch.stack([-2 * first, 2 * apart], 1).flatten(0, 1)  # (r, in)
        right = torch.stack([apart + squares * second, second], 1).flatten(0, 1)
        pair = torch.arange(len(left), device=left.device) // 2
        above = (right @ left.T) * (pair.unsqueeze(1) < pair)
        one = torch.eye(len(left), dtype=left.dtype, device=left.device)
        return left.T, torch.linalg.solve_triangular(one - above, one, upper=True), right.T

    def times(self, rows: Tensor, factors: Factors) -> Tensor:
        left, between, right = factors
        return rows @ left @ between @ right.T

    def factor_gradients(self, left: Tensor, right: Tensor, factors: Factors) -> Factors:
        outer, between, inner = factors
        reduced_left, reduced_right = left @ outer, right @ inner  # (tokens, r)
        return left.T @ (reduced_right @ between.T), reduced_left.T @ reduced_right, right.T @ (reduced_left @ between)
