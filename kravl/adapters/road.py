"""RoAd: scaled rotations of pairs of outputs (Liao and Monz, NeurIPS 2024, https://arxiv.org/abs/2409.00119)."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.adapters.dense import DenseAdapter, pull_through
from kravl.adapters.workspace import scratch
from kravl.runtime.errors import InputError, unknown

VARIANTS = (1, 2, 4)


class RoAd(DenseAdapter):
    """Row i of the adapted weight is α_i cos θ_i W_i ∓ α_i sin θ_i W_j, with j its partner; θ start at 0, α at 1.

    In each ``group`` of 2 h outputs the first h are partners of the others, and have the minus; None is one group of
    all, in which the last of an odd number stays as it is. ``variant`` 1 has one θ and α for each pair, 2 one for each
    output, 4 another for the cosine than for the sine. The weight alone is rotated; PEFT rotates the bias as well.

    Raises:
        InputError: the outputs are not a multiple of ``group``, or it is odd; unknown ``variant``; when attached, there
            is one output, which has no partner.
    """

    decays: ClassVar[Mapping[str, bool]] = {"theta": True, "alpha": False}  # the weight itself would be gone, not ΔW

    def __init__(
        self,
        out_features: int,
        in_features: int,
        variant: int = 1,
        group: int | None = None,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        if variant not in VARIANTS:
            raise unknown("variant", variant, [str(number) for number in VARIANTS])
        legal = [number for number in range(2, out_features + 1, 2) if out_features % number == 0]
        if group is not None and group not in legal:
            near = sorted(legal, key=lambda number: abs(number - group))[:2]
            raise InputError(
                f"group {group} does not fit {out_features} outputs: it is even and divides them"
                + (f", such as {' or '.join(map(str, near))}" if near else "; only null, which leaves one out, does")
            )
        self.variant, self.group = variant, group
        paired = out_features - out_features % 2
        side = (group or paired) // 2
        self.grid = (paired // (2 * side) if side else 0, 2, side)  # groups, halves, outputs of each
        parts = {1: (paired // 2,), 2: (paired,), 4: (2, paired)}[variant]
        self.theta, self.alpha = nn.Parameter(torch.zeros(parts)), nn.Parameter(torch.ones(parts))

    def attach(self, weight: Tensor) -> None:
        super().attach(weight)
        if self.out_features == 1:
            raise InputError(
                f"RoAd rotates pairs of outputs, and a matrix of 1 x {self.in_features} has one: leave it out"
            )

    def turns(self) -> Tensor:
        """α cos θ - 1 and α sin θ of each output in a pair, (2, groups, 2, outputs, 1)."""
        groups, _, side = self.grid
        theta: Tensor = self.theta
        alpha: Tensor = self.alpha
        if self.variant == 1:
            theta, alpha = (values.view(groups, 1, side).expand(self.grid) for values in (theta, alpha))
        cosine, sine = (theta[0], theta[1]) if self.variant == 4 else (theta, theta)
        first, second = (alpha[0], alpha[1]) if self.variant == 4 else (alpha, alpha)
        return torch.stack([first * cosine.cos() - 1, second * sine.sin()]).view(2, *self.grid, 1)

    def delta_weight(self) -> Tensor:
        """The update of a weight with ones on its diagonal."""
        return self.update(torch.eye(*self.shape, dtype=self.theta.dtype, device=self.theta.device)) / self.scale

    def update(self, weight: Tensor) -> Tensor:
        weight = weight.to(self.dtype)
        pairs, (cosine, sine) = self._pairs(weight), self.turns()
        turned = torch.stack([-pairs[:, 1], pairs[:, 0]], 1)
        rotated = (cosine * pairs + sine * turned).reshape(-1, self.in_features)
        return self.scale * torch.cat([rotated, torch.zeros_like(weight[len(rotated) :])])

    def write(self, weight: Tensor, out: Tensor) -> None:
        pairs, target, (cosine, sine) = self._pairs(weight), self._pairs(out), self.turns()
        torch.addcmul(pairs, pairs, cosine, value=self.scale, out=target)
        target[:, 0].addcmul_(pairs[:, 1], sine[:, 0], value=-self.scale)
        target[:, 1].addcmul_(pairs[:, 0], sine[:, 1], value=self.scale)
        alone = slice(math.prod(self.grid), None)
        out[alone] = weight[alone]

    def gradients(self, weight: Tensor, grad_update: Tensor) -> Mapping[str, Tensor]:
        pairs, towards = self._pairs(weight.to(self.dtype)), self._pairs(grad_update)
        shape = (math.prod(self.grid), self.in_features)
        products = scratch("products", shape, pairs, self.dtype).view_as(pairs)
        cosine = torch.mul(towards, pairs, out=products).sum(3)
        first, second = (torch.mul(towards[:, i], pairs[:, 1 - i], out=products[:, i]).sum(2) for i in (0, 1))
        grad_turns = torch.stack([cosine, torch.stack([-first, second], 1)]).unsqueeze(4).mul_(self.scale)
        return pull_through(self, RoAd.turns, grad_turns)

    def _pairs(self, matrix: Tensor) -> Tensor:
        """(groups, 2, outputs, in): the rows that have a partner."""
        return matrix[: math.prod(self.grid)].view(*self.grid, self.in_features)
