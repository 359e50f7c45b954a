"""A pull towards the pretrained weights, whatever an adapter's own parameters are."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Changes = Callable[[], Iterable[tuple[Tensor, Sequence[nn.Parameter]]]]  # each with the parameters that it is of


class L2SP:
    """L2-SP: ``strength`` / 2 times the squared distance of the adapted weights from the pretrained ones.

    Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks" (ICML 2018,
    https://arxiv.org/abs/1802.01483). For an adapter the distance is the Frobenius norm of its scaled ΔW, so that one
    strength means the same for every method; weight decay of its factors does not. A new head has no pretrained weights
    and is left to weight decay.

    Args:
        changes: gives what training has changed, with gradient, see `AdapterSet.changes`.
        new: identities of parameters that have no pretrained value.
    """

    def __init__(self, changes: Changes, strength: float, new: frozenset[int] = frozenset()) -> None:
        self.changes, self.strength, self.new = changes, strength, new

    def add_gradient(self) -> Tensor:
        """Add to the gradients of a step that of the penalty, which is returned.

        By matrix, so that no more than one update is held; once a step, however many batches its gradient is of.
        """
        penalties = []
        for change, parameters in self.changes():
            trained = [p for p in parameters if p.grad is not None and id(p) not in self.new]
            if not trained:
                continue
            pull = self.strength * change.detach()
            for parameter, gradient in zip(trained, torch.autograd.grad(change, trained, pull), strict=True):
                assert parameter.grad is not None
                parameter.grad += gradient
            penalties.append(0.5 * (pull * change.detach()).sum())
        return torch.stack(penalties).sum() if penalties else torch.zeros(())
