"""Updates that are a product of two factors, in the order of products that takes the fewest operations."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from kravl.adapters.base import Adapter, Pull
from kravl.adapters.scratch import scratch


class LowRank(Adapter):
    """ΔW = up @ down, of shapes (out, k) and (k, in): with few tokens the factors act on them one after the other.

    With many, ΔW is added to the weight first. The factors' gradients come from products with the tokens too, or, where
    k is large, from that of the whole weight. The shapes decide, by counting multiplications.
    """

    inner: int  # k
    trained: tuple[bool, bool]  # whether trainable parameters enter up, and down

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """``up`` (out, k) and ``down`` (k, in), differentiable in the parameters."""

    def delta_weight(self) -> Tensor:
        up, down = self.factors()
        return up @ down

    def chains(self, tokens: int, mask: Tensor | None) -> bool:
        outer, size = self.out_features + self.in_features, self.out_features * self.in_features
        return _of_entries(mask) or tokens * outer < size

    def chain(self, x: Tensor, y: Tensor, mask: Tensor | None) -> None:
        up, down = self._masked(mask)
        hidden = self._dropped(x, mask) @ down.to(x.dtype).T
        y.addmm_(hidden, up.to(x.dtype).T, alpha=self.scale)

    def add_to(self, weight: Tensor, mask: Tensor | None, out: Tensor) -> None:
        up, down = self._masked(mask)
        torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

    def chains_back(self, tokens: int, mask: Tensor | None) -> bool:
        both = (True, False)
        fewest = {chain: min(self.operations(tokens, chain, dense) for dense in both) for chain in both}
        return _of_entries(mask) or fewest[True] < fewest[False]

    def operations(self, tokens: int, chain: bool, dense: bool) -> int:
        """Multiplications of the update's backward pass beside those of the frozen layer.

        ``chain``: the gradient of the input goes back through the factors, not through the rebuilt adapted weight;
        ``dense``: the factors' gradients come from that of the weight.
        """
        k, rows, columns = self.inner, self.out_features, self.in_features
        up, down = self.trained
        total = tokens * k * columns if chain else k * rows * columns
        if dense:
            return total + tokens * rows * (columns + k * chain) + k * rows * columns * (up + down)
        return total + tokens * k * ((rows + columns) * up + columns * down + rows * (chain or down))

    def rebuild(self, weight: Tensor, mask: Tensor | None, out: Tensor | None) -> Pull:
        leaves = self.leaves()
        with torch.enable_grad():
            factors = self.bound(leaves)._masked(mask)
        if out is not None:
            up, down = (factor.detach() for factor in factors)
            torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

        def pull(gradient: Tensor, x: Tensor, towards_x: Tensor | None) -> Sequence[Tensor | None]:
            towards = self._pull(factors, gradient, x, towards_x, mask)
            trained = [factor for factor in factors if factor.requires_grad]
            known = {id(factor): tensor for factor, tensor in zip(trained, towards, strict=True)}
            if known.keys() == {
                id(leaf) for leaf in leaves.values()
            }:  # the factors are parameters: no need of autograd
                return [known[id(leaf)] for leaf in leaves.values()]
            return torch.autograd.grad(trained, list(leaves.values()), towards, allow_unused=True) if trained else ()

        return pull

    def _pull(
        self,
        factors: tuple[Tensor, Tensor],
        gradient: Tensor,
        x: Tensor,
        towards_x: Tensor | None,
        mask: Tensor | None,
    ) -> list[Tensor]:
        """The gradients of those ``factors`` that need one; the rest as in `Pull`."""
        chain, entries, dtype = towards_x is not None, _of_entries(mask), factors[0].dtype
        up, down = (factor.detach().to(x.dtype) for factor in factors)
        counts = [self.operations(len(x), chain, dense) for dense in (True, False)]
        dense = not entries and counts[0] < counts[1]
        needs_hidden = chain or (factors[1].requires_grad and not dense)
        hidden = gradient @ up if needs_hidden else gradient  # (tokens, k)
        if towards_x is not None and not entries:
            towards_x.addmm_(hidden, down, alpha=self.scale)
        elif towards_x is not None:
            towards_x.add_(self._dropped(hidden @ down, mask), alpha=self.scale)
        if dense:
            weight = torch.mm(gradient.T, x, out=scratch("matrix", (up.shape[0], down.shape[1]), x, x.dtype))
        else:
            x = self._dropped(x, mask)
        towards = []
        if factors[0].requires_grad:
            towards.append(weight @ down.T if dense else gradient.T @ (x @ down.T))
        if factors[1].requires_grad:
            towards.append(up.T @ weight if dense else hidden.T @ x)
        return [tensor.to(dtype).mul_(self.scale) for tensor in towards]

    def _masked(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        up, down = self.factors()
        return (up, down) if mask is None or _of_entries(mask) else (up, down * mask)

    def _dropped(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None or mask.dim() == 1 else (x * mask).mul_(1 / (1 - self.dropout))


def _of_entries(mask: Tensor | None) -> bool:
    """Whether the mask is one of the input's entries (tokens, in), with which no update of the weight agrees."""
    return mask is not None and mask.dim() == 2
