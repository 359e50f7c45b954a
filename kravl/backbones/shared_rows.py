"""Rows that several processes compute in shares and each needs whole; gradients flow back to their owner."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed


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
