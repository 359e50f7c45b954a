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

    @property
    @abstractmethod
    def trained(self) -> tuple[bool, bool]:
        """Whether parameters that train enter up, and down."""

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
        up, down = self._masked(mask)
        if out is not None:
            torch.addmm(weight.to(up.dtype), up, down, alpha=self.scale, out=out)

        def pull(gradient: Tensor, x: Tensor, towards_x: Tensor | None) -> Sequence[Tensor | None]:
            cast_up, cast_down = up.to(x.dtype), down.to(x.dtype)
            towards_up, towards_down = self._pull(cast_up, cast_down, mask, (gradient, x, towards_x))
            if towards_down is not None and mask is not None and not _of_entries(mask):
                towards_down *= mask
            return self.pull_back(towards_up, towards_down) if any(self.trained) else ()

        return pull

    def pull_back(self, towards_up: Tensor | None, towards_down: Tensor | None) -> Sequence[Tensor | None]:
        """Gradients of the trainable parameters from those (k, out), (k, in) of the factors where they are `trained`.

        They may be overwritten.
        """
        leaves = self.leaves()
        with torch.enable_grad():
            up, down = self.bound(leaves).factors()
            pairs = [(factor, towards) for factor, towards in ((up.T, towards_up), (down, towards_down))]
        factors, towards = zip(*[pair for pair in pairs if pair[1] is not None], strict=True)
        return torch.autograd.grad(factors, list(leaves.values()), towards, allow_unused=True)

    def _pull(
        self, up: Tensor, down: Tensor, mask: Tensor | None, ends: tuple[Tensor, Tensor, Tensor | None]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of up, transposed, and of down, where they are trained; ``ends`` as in `Pull`."""
        gradient, x, towards_x = ends
        chain, (trains_up, trains_down) = towards_x is not None, self.trained
        counts = [self.operations(len(x), chain, dense) for dense in (True, False)]
        dense = not _of_entries(mask) and counts[0] < counts[1]
        hidden = gradient @ up if chain or (trains_down and not dense) else gradient  # (tokens, k)
        if towards_x is not None and not _of_entries(mask):
            towards_x.addmm_(hidden, down, alpha=self.scale)
        elif towards_x is not None:
            towards_x.add_(self._dropped(hidden @ down, mask), alpha=self.scale)
        towards_up = towards_down = None
        if dense:
            weight = torch.mm(gradient.T, x, out=scratch("matrix", (up.shape[0], down.shape[1]), x, x.dtype))
            towards_up = down @ weight.T if trains_up else None
            towards_down = up.T @ weight if trains_down else None
        elif trains_up or trains_down:
            x = self._dropped(x, mask)
            towards_up = (x @ down.T).T @ gradient if trains_up else None
            towards_down = hidden.T @ x if trains_down else None
        return self._scaled(towards_up), self._scaled(towards_down)

    def _scaled(self, towards: Tensor | None) -> Tensor | None:
        return None if towards is None else towards.to(self.dtype).mul_(self.scale)

    def _masked(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        up, down = self.factors()
        return (up, down) if mask is None or _of_entries(mask) else (up, down * mask)

    def _dropped(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None or mask.dim() == 1 else (x * mask).mul_(1 / (1 - self.dropout))


def _of_entries(mask: Tensor | None) -> bool:
    """Whether the mask is one of the input's entries (tokens, in), with which no update of the weight agrees."""
    return mask is not None and mask.dim() == 2
