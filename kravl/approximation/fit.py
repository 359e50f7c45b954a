"""Train one adapter by AdamW until its update is as near to a matrix as it gets."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kravl.adapters.base import Adapter

CHECK_EVERY = 50  # steps between two looks at the loss, each of which waits for the device


class DivergedError(RuntimeError):
    """The loss is not a number."""


@dataclass(frozen=True)
class FitSettings:
    """``steps`` of AdamW on the Frobenius norm of the difference.

    ``schedule`` is "cosine", from ``lr`` to zero, or "constant". ``scale`` multiplies every method's update; None keeps
    each adapter's own. ``normalise`` fits the target at a root mean square of 1, so that one rate suits all targets.
    """

    steps: int
    lr: float
    schedule: str
    weight_decay: float
    scale: float | None
    normalise: bool


def fit(adapter: Adapter, target: Tensor, settings: FitSettings) -> Tensor:
    """The update (out, in) that training finds, in double precision.

    A method that starts from pretrained values (DoRA) gets a normal matrix of the target's root mean square.

    Raises:
        DivergedError: the loss is not a number.
    """
    rms = target.square().mean().sqrt()
    unit = rms if settings.normalise else torch.ones_like(rms)
    goal = (target / unit).to(torch.float32)
    base = torch.randn_like(goal) * (rms / unit).to(goal.dtype)
    adapter.to(goal.device).attach(base)
    if settings.scale is not None:
        adapter.scale = settings.scale
    _train(adapter, base, goal, settings)
    with torch.no_grad():
        return adapter.update(base).double() * unit


def _train(adapter: Adapter, base: Tensor, goal: Tensor, settings: FitSettings) -> None:
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    for step in range(settings.steps):
        if settings.schedule == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        loss = torch.linalg.vector_norm(adapter.update(base) - goal)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == settings.steps:
            _require_finite(loss, step, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _require_finite(loss: Tensor, step: int, settings: FitSettings) -> None:
    if not torch.isfinite(loss):
        raise DivergedError(f"the loss is {loss.item()} at step {step}; lower fit.lr={settings.lr}")
