"""The processes of a distributed run: whether this is rank 0, and rows gathered from all ranks."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed

ALONE = (1, "1")


def is_first_process(settings: Mapping[str, Any]) -> bool:
    """Whether this process is rank 0 of its run; ``settings`` are the Trainer's arguments.

    torchrun sets RANK; Lightning sets NODE_RANK and LOCAL_RANK for the processes that it starts itself; SLURM sets
    SLURM_PROCID, which counts only if the run has several processes: a job may hold single-process runs side by side.
    """
    if "RANK" in os.environ:
        ranks = [os.environ["RANK"]]
    elif "LOCAL_RANK" in os.environ:
        ranks = [os.environ["LOCAL_RANK"], os.environ.get("NODE_RANK", "0")]
    elif settings.get("num_nodes", 1) in ALONE and settings.get("devices", 1) in ALONE:
        return True
    else:
        ranks = [os.environ.get("SLURM_PROCID", os.environ.get("NODE_RANK", "0"))]
    return all(rank == "0" for rank in ranks)


def num_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def own_share(count: int) -> tuple[slice, list[int]]:
    """The rows of this process among ``count``, and how many each process has: equal shares, give or take one."""
    processes, rank = num_processes(), distributed.get_rank()
    bounds = [count * i // processes for i in range(processes + 1)]
    return slice(bounds[rank], bounds[rank + 1]), [b - a for a, b in pairwise(bounds)]


def gather_rows(local: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes (sum of ``sizes``, d), in rank order.

    A row's gradient is summed over the processes: the mean over processes, which data-parallel training takes of each
    parameter's gradient, then equals the gradient of one process with all images.
    """
    return _GatherRows.apply(local, list(sizes))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, sizes: list[int]) -> Tensor:
        rank = distributed.get_rank()
        ctx.rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        gathered = local.new_zeros(sum(sizes), *local.shape[1:])
        gathered[ctx.rows] = local
        distributed.all_reduce(gathered)  # zeros elsewhere: the sum is exact, and unequal shares work too
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.rows], None
