"""The optimiser's settings, its parameter groups and its learning-rate schedule."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class OptimSettings:
    """AdamW and its schedule; learning rates at their peak, ``warmup_steps`` in optimiser steps."""

    lr: float
    head_lr: float | None
    weight_decay: float
    warmup_steps: int
    min_lr_ratio: float


def schedule(step: int, total: int, warmup: int, floor: float) -> float:
    """Fraction of the peak learning rate at ``step``: linear to 1 over ``warmup`` steps, then a cosine to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    parameters: Iterable[nn.Parameter], head: set[int], decays: Mapping[int, bool], optim: OptimSettings
) -> Iterator[dict[str, Any]]:
    """Matrices with weight decay, vectors (biases, norms, scales) without; the head at its own learning rate.

    ``head`` and ``decays`` go by the id of a parameter; where the latter has one, it replaces the rule.
    """
    keyed: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        decay = decays.get(id(parameter), parameter.ndim >= 2)
        keyed.setdefault((id(parameter) in head, decay), []).append(parameter)
    for (is_head, decay), members in keyed.items():
        lr = optim.head_lr if is_head and optim.head_lr is not None else optim.lr
        yield {"params": members, "lr": lr, "weight_decay": optim.weight_decay if decay else 0.0}


def decay_exceptions(model: nn.Module) -> dict[int, bool]:
    """``decays`` of `parameter_groups`: what the modules of ``model`` say in an attribute of that name."""
    stated = [
        (module, name, decay) for module in model.modules() for name, decay in getattr(module, "decays", {}).items()
    ]
    return {id(getattr(module, name)): decay for module, name, decay in stated}
