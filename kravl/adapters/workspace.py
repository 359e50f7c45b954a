"""Scratch memory for a matrix that is needed within one call alone, reused between calls on a CPU.

There, the allocator returns large blocks to the system and faults them in again at each use, page by page, which takes
longer than writing a matrix of a ViT-B. On a GPU, PyTorch's caching allocator does not.
"""

import threading

import torch
from torch import Tensor


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}


_local = _Buffers()


def scratch(purpose: str, shape: tuple[int, int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised matrix on the device of ``like``, valid until the next call for the same ``purpose``."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    name, size = (purpose, dtype), shape[0] * shape[1]
    buffer = _local.buffers.get(name)
    if buffer is None or buffer.numel() < size:
        with torch.inference_mode(False):  # a tensor created in that mode cannot be written outside of it
            _local.buffers[name] = buffer = torch.empty(size, dtype=dtype)
    return buffer[:size].view(shape)


def cast(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` in ``dtype``: itself, or a copy that is valid until the next call."""
    if matrix.dtype == dtype:
        return matrix
    return scratch("cast", (matrix.shape[0], matrix.shape[1]), matrix, dtype).copy_(matrix)


def release() -> None:
    """Free the buffers of this thread."""
    _local.buffers.clear()
