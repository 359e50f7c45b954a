"""The singular values of what a finished run added to its weights."""

import torch
from torch import Tensor

from kravl.record import RunFolder
from kravl.restore import restore, saved_config


def singular_values(folder: RunFolder) -> dict[str, Tensor]:
    """Site -> singular values of its ΔW, largest first, in double precision; empty where no matrix is adapted.

    Raises:
        InputError: as `restore`.
    """
    parts = restore(saved_config(folder, {}), folder)
    return {site: torch.linalg.svdvals(delta.double()) for site, delta in parts.adapters.deltas()}


def mean_decay(values: dict[str, Tensor], points: int = 100) -> list[float]:
    """How singular values fall off: each site's divided by its largest, meaned over the sites that changed.

    Sites have different sizes, so they are compared at ``points`` equal steps of the share of the smaller dimension,
    from the first singular value to the last.
    """
    scaled = [v / v[0] for v in values.values() if v[0] > 0]
    at = [v[torch.linspace(0, len(v) - 1, points, dtype=torch.float64).round().long()] for v in scaled]
    return torch.stack(at).mean(0).tolist() if at else []
