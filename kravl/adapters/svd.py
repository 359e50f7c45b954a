"""The leading singular directions of a pretrained weight, where adapters start or stay."""

import torch
from torch import Tensor


def leading_directions(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, rank), the singular values (rank,) and Vᵀ (rank, in) of ``weight`` (out, in), in double precision.

    The largest entry of each left vector is positive. So what is trained in these directions means the same on another
    machine, where they are computed again: checkpoints do not hold them.
    """
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()  # (1, rank)
    return u * signs, s, vh * signs.T
