"""Memory for a matrix that lives within one call, kept between calls on a CPU.

There, large memory is given back to the system and faulted in again at each use, page by page, which takes longer than
to write a matrix of a ViT-B. On a GPU PyTorch's allocator keeps it.
"""

import threading

import torch
from torch import Tensor


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}


_kept = _Kept()


def scratch(purpose: str, shape: tuple[int, int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised matrix on the device of ``like``, valid until the next call for the same ``purpose``."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    name, size = (purpose, dtype), shape[0] * shape[1]
    buffer = _kept.buffers.get(name)
    if buffer is None or buffer.numel() < size:
        with torch.inference_mode(False):  # what is made in that mode cannot be written outside of it
            _kept.buffers[name] = buffer = torch.empty(size, dtype=dtype)
    return buffer[:size].view(shape)


def cast(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` in ``dtype``: itself, or a copy that is valid until the next one."""
    if matrix.dtype == dtype:
        return matrix
    return scratch("cast", (matrix.shape[0], matrix.shape[1]), matrix, dtype).copy_(matrix)


def release() -> None:
    """Give back what this thread keeps."""
    _kept.buffers.clear()
