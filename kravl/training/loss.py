"""The loss of a run: cross-entropy with label smoothing and class weights, as a mean over all images of a step."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.runtime.errors import InputError
from kravl.training.l2_sp import L2SP

BALANCED = "balanced"


class Loss(nn.Module):
    """Torch's ``cross_entropy`` of a batch, whose gradient over several batches is that of one batch of all images.

    The mean over batches is not that where the last batches of an epoch are fewer or smaller, or where class weights
    differ between batches. `forward` therefore weighs each batch, and `rescale` corrects the sum before a step.

    Args:
        label_smoothing: share of each label that is spread over all classes.
        class_weights: of the classes in label order; None: all alike.
        l2_sp: a penalty of the weights, whose gradient is added once a step; it is in none of `forward`'s losses.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        l2_sp: L2SP | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.l2_sp = label_smoothing, l2_sp
        # no buffer: in float32 whatever precision the model is in
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.start()

    def start(self, batches: int = 1, processes: int = 1) -> None:
        """A step is to be of ``batches``, each computed by so many ``processes``; what was added up is forgotten."""
        weighted = self.class_weights is not None
        self._batches, self._adds_up = batches, batches > 1 or (weighted and processes > 1)
        self._size, self._total = 0, 0.0

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch with ``logits`` (b, C) and ``labels`` (b,), and what to differentiate in its place."""
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(logits.device)  # once: a copy to a GPU waits for it
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        loss = F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing)
        if not self._adds_up:
            return loss, loss
        share = len(labels) if weights is None else weights[labels].sum().item()
        self._size = self._size or len(labels)
        self._total += share
        return loss, loss * (share / self._size)  # a factor of exactly 1 for batches of one size

    def rescale(self, gradients: Sequence[Tensor], mean: Callable[[float], float] = float) -> None:
        """Turn the mean over a step's batches into that over its images; ``mean`` averages a number over processes."""
        if not self._adds_up:
            return
        factor = self._batches * self._size / float(mean(self._total))
        self._size, self._total = 0, 0.0
        if factor != 1.0:
            for gradient in gradients:
                gradient.mul_(factor)


def check_loss(label_smoothing: float, class_weights: Any) -> None:
    """Raise InputError for a share outside [0, 1], or class weights that are neither ``balanced`` nor positive."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"optim.label_smoothing={label_smoothing}; it is a share, from 0 (none) to 1")
    if class_weights is None or class_weights == BALANCED:
        return
    if not isinstance(class_weights, Sequence) or isinstance(class_weights, str):
        raise InputError(f"optim.class_weights={class_weights}; legal are null, {BALANCED} and a list of numbers")
    for weight in class_weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise InputError(f"optim.class_weights has {weight!r}; each weight must be a number above 0")


def resolved_class_weights(setting: Any, labels: Sequence[int], class_names: Sequence[str]) -> list[float] | None:
    """The weight of each class for ``optim.class_weights``; ``balanced`` is images / (classes * images of the class).

    Raises:
        InputError: as `check_loss`; not as many weights as classes, or a class without an image to balance by.
    """
    check_loss(0.0, setting)
    if setting is None:
        return None
    if setting == BALANCED:
        counts = Counter(labels)
        if empty := [name for label, name in enumerate(class_names) if not counts[label]]:
            raise InputError(
                f"optim.class_weights={BALANCED}: {len(empty)} classes have no training image "
                f"({', '.join(empty[:5])}); give a list of weights, or draw images of each class"
            )
        return [len(labels) / (len(class_names) * counts[label]) for label in range(len(class_names))]
    if len(setting) != len(class_names):
        raise InputError(f"optim.class_weights has {len(setting)} weights; there are {len(class_names)} classes")
    return [float(weight) for weight in setting]
