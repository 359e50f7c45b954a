"""KRAdapter: a Khatri-Rao product update (Albert et al., ICCV 2025, https://arxiv.org/abs/2508.00230)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters.base import Adapter, UpdateGradients, VectorJacobianProduct
from kravl.adapters.budget import MULTIPLE, Sizes
from kravl.adapters.workspace import cast, scratch
from kravl.runtime.errors import InputError, unknown


class KRAdapter(Adapter):
    """Row i of ΔW is v_i ⊗ u_i: entry (i, a * r + b) is V[i, a] * U[i, b], cut to the longer side.

    With m the shorter and M the longer side, U is (m, r) and zero, V is (m, c) and Kaiming-uniform with negative slope
    ``init_a``, c = ceil(M / r). r is the floored square root of the side that ``split`` names ("short" as in the
    released layer, "long" as in the paper's toy experiment) or ``split`` itself; "2x" takes the r above that of "short"
    whose number of parameters is nearest to twice as many. If the shorter side is the input, ΔW is transposed. It has
    m * (r + c) parameters, fewest near r = sqrt(M), and full rank almost surely; it cannot express a generic rank-1
    update unless r is M.

    Raises:
        InputError: ``split`` is neither "short" nor "long", nor a multiple, nor a whole number from 1 to M.

    Examples:
        >>> from kravl import KRAdapter
        >>> adapter = KRAdapter(out_features=768, in_features=3072)
        >>> sum(parameter.numel() for parameter in adapter.parameters())
        108288
        >>> bool(adapter.delta_weight().any())  # zero at initialisation
        False
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        scale: float = 2.0,
        split: str | int = "short",
        init_a: float = 5.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, scale, dropout)
        self.split, self.init_a = split, init_a
        short, long = sorted((out_features, in_features))
        multiple = isinstance(split, str) and MULTIPLE.fullmatch(split)
        if multiple and 0 < float(multiple[1]) < 1:
            raise InputError(f"split={split}: KRAdapter with its usual split is the smallest of its kind; 1x is that")
        usual_or_more = range(math.isqrt(short), long + 1)  # a size has two solutions: the same one for every shape
        r = self._sizes(usual_or_more).choose(split, self.shape) if multiple else inner_size(split, short, long)
        self.u = nn.Parameter(torch.zeros(short, r))
        self.v = nn.Parameter(torch.empty(short, math.ceil(long / r)))
        nn.init.kaiming_uniform_(self.v, a=init_a)

    def legal_sizes(self) -> Sizes:
        return self._sizes(range(1, max(self.shape) + 1))

    def _sizes(self, splits: range) -> Sizes:
        short, long = sorted(self.shape)
        return Sizes.of("split", splits, lambda split: short * (split + math.ceil(long / split)))

    def delta_weight(self) -> Tensor:
        if self.out_features <= self.in_features:
            return (self.v.unsqueeze(2) * self.u.unsqueeze(1)).flatten(1)[:, : self.in_features]
        return (self.v.T.unsqueeze(1) * self.u.T.unsqueeze(0)).flatten(0, 1)[: self.out_features]

    def delta_columns(self, index: Tensor) -> Tensor:
        r = self.u.shape[1]
        if self.out_features <= self.in_features:  # column a * r + b is V[:, a] * U[:, b]
            return F.embedding(index // r, self.v.T) * F.embedding(index % r, self.u.T)
        v, u = F.embedding(index, self.v), F.embedding(index, self.u)
        return (v.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)[..., : self.out_features]

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        if mask is not None:
            super().add_to(weight, mask, out)
        elif self.out_features <= self.in_features:
            _add_khatri_rao(weight, self.u, self.v, self.scale, out)
        else:  # contiguous copies of the factors, so that all four matrices are accessed in memory order
            u, v = self.u.T.contiguous().T, self.v.T.contiguous().T
            _add_khatri_rao(weight.T, u, v, self.scale, out.T)

    def recompute(
        self, weight: Tensor, mask: Tensor | None, out: Tensor | None, hidden: Tensor | None
    ) -> VectorJacobianProduct:
        if mask is not None:
            return super().recompute(weight, mask, out, hidden)
        if out is not None:
            self.add_to(weight, mask, out)

        def vjp(gradient: Tensor, x: Tensor, grad_x: Tensor | None) -> Sequence[Tensor | None]:
            short, long = (gradient, x) if self.out_features <= self.in_features else (x, gradient)
            return self._gradients(
                torch.mm(short.T, long, out=scratch("matrix", (short.shape[1], long.shape[1]), x, x.dtype))
            )

        return vjp

    def recompute_update(self, weight: Tensor, mask: Tensor | None, out: Tensor | None) -> UpdateGradients:
        if mask is not None:
            return super().recompute_update(weight, mask, out)
        if out is not None:
            self.add_to(weight, mask, out)
        wide = self.out_features <= self.in_features
        return lambda grad_update: self._gradients(grad_update if wide else grad_update.T)

    def _gradients(self, grad_update: Tensor) -> Sequence[Tensor]:
        """Of the trainable factors, from the gradient (m, M) of the update or, where that is wider, its transpose."""
        gradients = _contract(cast(grad_update, self.u.dtype), self.u, self.v)
        pairs = zip(gradients, (self.u, self.v), strict=True)
        return [gradient.mul_(self.scale) for gradient, parameter in pairs if parameter.requires_grad]


def _add_khatri_rao(weight: Tensor, u: Tensor, v: Tensor, scale: float, out: Tensor) -> None:
    """out[i, a * r + b] = weight[i, a * r + b] + scale * v[i, a] * u[i, b] in one pass; the last group may be cut."""
    r, long = u.shape[1], weight.shape[1]
    count, left = divmod(long, r)
    groups, target = (matrix[:, : long - left].view(-1, count, r) for matrix in (weight, out))
    torch.addcmul(groups, v[:, :count].unsqueeze(2), u.unsqueeze(1), value=scale, out=target)
    if left:
        torch.addcmul(weight[:, -left:], v[:, count:], u[:, :left], value=scale, out=out[:, -left:])


def _contract(grad_update: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of u and v from that (m, M) of the rows v_i ⊗ u_i: each row, folded to (c, r), times u_i and v_i."""
    r, long = u.shape[1], grad_update.shape[1]
    count, left = divmod(long, r)
    groups = grad_update[:, : long - left].view(-1, count, r)
    grad_u = (v[:, :count].unsqueeze(1) @ groups).squeeze(1)
    # rows, not columns: a CPU takes several times as long for the products of many matrices with one column each
    grad_v = (u.unsqueeze(1) @ groups.transpose(1, 2)).squeeze(1)
    if left:
        tail = grad_update[:, -left:]
        grad_u[:, :left].addcmul_(tail, v[:, count:])
        grad_v = torch.cat([grad_v, (tail * u[:, :left]).sum(1, keepdim=True)], dim=1)
    return grad_u, grad_v


def inner_size(split: str | int, short: int, long: int) -> int:
    """r of `KRAdapter` for a matrix with sides ``short`` and ``long``. Raises InputError as it does."""
    if isinstance(split, int):
        if not 1 <= split <= long:
            raise InputError(f"split must be short, long, 2x or a whole number from 1 to {long}, not {split}")
        return split
    if split not in ("short", "long"):
        raise unknown("split", split, ("short", "long", "2x"))
    return math.isqrt(short if split == "short" else long)
