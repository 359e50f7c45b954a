"""One fit of an adapter to a target matrix, and its errors."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kravl.adapters.base import Adapter
from kravl.adapters.rank import ranks_and_norms
from kravl.training.optim import OptimSettings, decay_exceptions, parameter_groups

TOP = 16  # leading singular directions whose overlap is measured
POINTS = 64  # singular values recorded of a spectrum, at equal steps of its length
CHECK_EVERY = 50  # steps between two checks of the loss, each of which waits for the device


@dataclass(frozen=True)
class Decomposed:
    """A matrix (out, in) in double precision with its singular value decomposition, computed once."""

    matrix: Tensor

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(self.matrix, full_matrices=False)
        return u, s, vh

    @property
    def values(self) -> Tensor:
        """Singular values, largest first."""
        return self.svd[1]

    def describe(self) -> dict[str, float]:
        """Effective and stable rank and the nuclear norm."""
        ranks = ranks_and_norms(self.values)
        chosen = {name: ranks[name] for name in ("effective_rank", "stable_rank")}
        return chosen | {"nuclear_norm": self.values.sum().item()}

    def points(self) -> list[float]:
        """Up to POINTS of the singular values, the first and the last included, rounded to four digits."""
        at = torch.linspace(0, len(self.values) - 1, min(POINTS, len(self.values)), dtype=torch.float64)
        return [float(f"{value:.3e}") for value in self.values[at.round().long()].tolist()]


def measure(fitted: Decomposed, target: Decomposed) -> dict[str, float]:
    """Errors of ``fitted`` relative to ``target``; 0 is the target itself, 1 as far off as the zero matrix.

    ``frobenius_error`` and ``spectral_error`` are relative norms of the difference. ``singular_value_error`` is the
    mean absolute difference of the sorted singular values, which the released script calls nuclear error: it ignores
    directions, so that any matrix with the right spectrum has none. ``overlap`` is the mean squared cosine between the
    spaces of the TOP leading singular vectors, averaged over left and right; 1 is the same space.
    """
    difference = fitted.matrix - target.matrix
    return {
        "frobenius_error": frobenius_error(fitted.matrix, target.matrix),
        "spectral_error": (torch.linalg.matrix_norm(difference, 2) / target.values[0]).item(),
        "singular_value_error": (fitted.values - target.values).abs().mean().item(),
        "overlap": _overlap(fitted, target),
        **fitted.describe(),
        **{f"target_{name}": value for name, value in target.describe().items()},
    }


def frobenius_error(fitted: Tensor, target: Tensor) -> float:
    """‖fitted - target‖ / ‖target‖."""
    return (torch.linalg.matrix_norm(fitted - target) / torch.linalg.matrix_norm(target)).item()


def _overlap(fitted: Decomposed, target: Decomposed) -> float:
    top = min(TOP, len(target.values))
    (u, _, vh), (u0, _, vh0) = fitted.svd, target.svd
    left = (u[:, :top].T @ u0[:, :top]).square().sum() / top
    right = (vh[:top] @ vh0[:top].T).square().sum() / top
    return (0.5 * (left + right)).item()


class FitDivergedError(RuntimeError):
    """The loss is not finite."""


@dataclass(frozen=True)
class FitSettings:
    """``steps`` of AdamW on the Frobenius norm of the difference.

    ``schedule`` is "cosine" (from ``lr`` to zero) or "constant". ``scale`` multiplies every method's update; None keeps
    each adapter's own. ``normalise`` fits the target at a root mean square of 1, so that one learning rate suits all.
    """

    steps: int
    lr: float
    schedule: str
    weight_decay: float
    scale: float | None
    normalise: bool


def unit_of(target: Tensor, settings: FitSettings) -> Tensor:
    """What the target is divided by before the fit."""
    rms = target.square().mean().sqrt()
    return rms if settings.normalise else torch.ones_like(rms)


def draw_weight(target: Tensor, settings: FitSettings) -> Tensor:
    """A pretrained weight (out, in) for methods that need one: normal, of the target's root mean square, in units."""
    noise = torch.randn_like(target, dtype=torch.float32)
    return noise * (target.square().mean().sqrt() / unit_of(target, settings)).to(noise.dtype)


def fit_adapter(adapter: Adapter, target: Tensor, settings: FitSettings, weight: Tensor | None = None) -> Tensor:
    """The update (out, in) that training finds, in double precision.

    ``weight`` (out, in), in units, is the pretrained one of methods that start from it; None draws it.

    Raises:
        FitDivergedError: the loss is not finite.
    """
    unit = unit_of(target, settings)
    scaled_target = (target / unit).to(torch.float32)
    base = draw_weight(target, settings) if weight is None else weight
    adapter.to(scaled_target.device).attach(base)
    if settings.scale is not None:
        adapter.scale = settings.scale
    _train(adapter, base, scaled_target, settings)
    with torch.no_grad():
        return adapter.update(base).double() * unit


def _train(adapter: Adapter, base: Tensor, scaled_target: Tensor, settings: FitSettings) -> None:
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    optim = OptimSettings(settings.lr, None, settings.weight_decay, warmup_steps=0, min_lr_ratio=0.0)
    optimizer = torch.optim.AdamW(parameter_groups(parameters, set(), decay_exceptions(adapter), optim), fused=True)
    for step in range(settings.steps):
        if settings.schedule == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        loss = torch.linalg.vector_norm(adapter.update(base) - scaled_target)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == settings.steps:
            _require_finite(loss, step, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _require_finite(loss: Tensor, step: int, settings: FitSettings) -> None:
    if not torch.isfinite(loss):
        raise FitDivergedError(f"the loss is {loss.item()} at step {step}; lower fit.lr={settings.lr}")
