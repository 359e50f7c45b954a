"""How heads are fitted by gradients: plain loops over features in memory, and L-BFGS to convergence."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from kravl.backbones.heads.head import Head, Support
from kravl.runtime.signals import raise_if_stopped

COLD = 1e-5  # the learning rate of a warm-up, in Dassl's configs
CHECKED_EVERY = 64  # steps between looks at whether the process is to stop


@dataclass(frozen=True)
class Descent:
    """Gradient descent with a cosine from ``lr`` to 0.

    Args:
        optimizer: ``sgd`` (momentum 0.9), ``adam`` or ``adamw``.
        steps: how many; None is ``epochs`` over all images.
        batch_size: images a step; None for all.
        warmup: steps before the cosine takes over: at a rate of 1e-5, or rising from it if ``rising``.
        eps: of Adam.
    """

    optimizer: str
    lr: float
    epochs: int = 1
    steps: int | None = None
    batch_size: int | None = None
    weight_decay: float = 0.0
    warmup: int = 0
    rising: bool = False
    eps: float = 1e-8

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return max(COLD, self.lr * step / self.warmup) if self.rising else COLD
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / total))

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The optimiser."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, self.lr, momentum=0.9, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True)

    def length(self, num_images: int) -> tuple[int, int]:
        """Steps in all, and those of an epoch."""
        each = -(-num_images // min(self.batch_size or num_images, num_images))
        return self.epochs * each if self.steps is None else self.steps, each


def descend(head: Head, support: Support, plan: Descent) -> None:
    """Minimise cross-entropy and penalty; an epoch sees one view of each image, the views in turn."""
    features, labels, text = support.features.transpose(0, 1).contiguous(), support.labels, support.text
    views, count = features.shape[:2]
    total, each = plan.length(count)
    generator = torch.Generator().manual_seed(support.seed)
    parameters: list[Tensor] = list(head.parameters())
    optimizer = plan.build(parameters)
    order = torch.empty(0, dtype=torch.long)
    for step in range(total):
        if step % CHECKED_EVERY == 0:
            raise_if_stopped()
        view = features[(step // each) % views]
        if each == 1:
            x, y = view, labels
        else:
            if step % each == 0:
                order = torch.randperm(count, generator=generator).to(labels.device)
            size = plan.batch_size or count
            rows = order[(step % each) * size : (step % each + 1) * size]
            x, y = view[rows], labels[rows]
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step, total)
        take_step(optimizer, head, x, y, text)


def take_step(optimizer: torch.optim.Optimizer, head: Head, x: Tensor, y: Tensor, text: Tensor | None) -> None:
    """One step on features (b, d) with labels (b,)."""
    loss = F.cross_entropy(head(x, text), y)
    if (penalty := head.penalty(text)) is not None:
        loss = loss + penalty
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def converge(
    loss: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, gradient: float = 1e-4, most: int = 1000
) -> Tensor:
    """The minimum of a convex ``loss`` by L-BFGS, to a largest ``gradient``, as scikit-learn's logistic regression.

    Args:
        loss: its value and its gradient.
        most: iterations at most.
    """

    def value_and_gradient(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raise_if_stopped()
        value, slope = loss(torch.from_numpy(numbers).to(start).reshape(start.shape))
        return value.item(), slope.double().flatten().cpu().numpy()

    options = {"maxiter": most, "maxls": 50, "gtol": gradient, "ftol": 64 * float(np.finfo(np.float64).eps)}
    first = start.double().flatten().cpu().numpy()
    found = minimize(value_and_gradient, first, method="L-BFGS-B", jac=True, options=options)
    return torch.from_numpy(found.x).to(start).reshape(start.shape)
