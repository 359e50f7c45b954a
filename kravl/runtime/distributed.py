"""The processes of a distributed run: which is the first, and rows gathered from all of them."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed

ALONE = (1, "1")


def is_first_process(settings: Mapping[str, Any]) -> bool:
    """Whether this process has the number 0 of its run; ``settings`` are Trainer's arguments.

    torchrun numbers processes in RANK; Lightning those that it starts itself in NODE_RANK and LOCAL_RANK; SLURM its
    tasks in SLURM_PROCID, which are one run only where that has several processes: a job may have runs side by side.
    """
    if "RANK" in os.environ:
        numbers = [os.environ["RANK"]]
    elif "LOCAL_RANK" in os.environ:
        numbers = [os.environ["LOCAL_RANK"], os.environ.get("NODE_RANK", "0")]
    elif settings.get("num_nodes", 1) in ALONE and settings.get("devices", 1) in ALONE:
        return True
    else:
        numbers = [os.environ.get("SLURM_PROCID", os.environ.get("NODE_RANK", "0"))]
    return all(number == "0" for number in numbers)


def num_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def own_share(count: int) -> tuple[slice, list[int]]:
    """The rows of this process among ``count``, and how many each process has: equally many, give or take one."""
    processes, rank = num_processes(), distributed.get_rank()
    bounds = [count * i // processes for i in range(processes + 1)]
    return slice(bounds[rank], bounds[rank + 1]), [b - a for a, b in pairwise(bounds)]


def gather_rows(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes (sum of ``sizes``, d), in their order.

    A row's gradient is the sum of what the processes make of it: the mean over processes, which data parallel training
    takes of each parameter's gradient, is then that of one process with all images.
    """
    return _GatherRows.apply(own, list(sizes))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        rank = distributed.get_rank()
        ctx.rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        whole = own.new_zeros(sum(sizes), *own.shape[1:])
        whole[ctx.rows] = own
        distributed.all_reduce(whole)  # zeros elsewhere: the sum is the rows, bit for bit, also in unequal shares
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.rows], None
