"""Batches split into micro-batches when memory runs out: fewer images at a time, the same result."""

import gc
import logging
from collections.abc import Callable

import torch
from pytorch_lightning.utilities.memory import is_oom_error
from torch import Tensor
from torch.utils.checkpoint import checkpoint

log = logging.getLogger(__name__)
Encode = Callable[[Tensor], Tensor]
# of CUDA's libraries, which take memory beside PyTorch's allocator
NO_WORKSPACE = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED")


class OutOfMemory(RuntimeError):  # noqa: N818 (the condition's name)
    """Memory runs out with one image at a time, or a batch cannot be split; names the setting to change."""


class MicroBatches:
    """At most ``size`` images at a time; None is the whole batch."""

    def __init__(self) -> None:
        self.size: int | None = None

    def halve(self, batch: int, setting: str) -> None:
        """Halve the images taken at a time from batches of ``batch``, the value of ``setting``.

        Raises:
            OutOfMemory: it is one image already.
        """
        at_once = min(self.size or batch, batch)
        if at_once == 1:
            raise OutOfMemory(
                f"out of memory with one image at a time; a smaller {setting} cannot help: use a smaller backbone, "
                "checkpointing=true, fewer classes or trainer.precision=bf16-mixed"
            )
        self.size = -(-at_once // 2)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        count = -(-batch // self.size)
        log.warning("out of memory: splitting %s=%d into %d micro-batches of %d", setting, batch, count, self.size)

    def encode(self, encode: Encode, images: Tensor, setting: str) -> Tensor:
        """``encode(images)`` without gradients, retried in smaller micro-batches until it fits."""
        while True:
            try:
                return self._encode(encode, images)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self.halve(len(images), setting)  # outside of except, where the failed attempt's tensors are freed

    def encode_checkpointed(self, encode: Encode, images: Tensor) -> Tensor:
        """``encode(images)`` whose backward pass recomputes each micro-batch, so that only its activations are held.

        The gradient is that of the whole batch, as if it had been accumulated over the micro-batches.
        """
        assert self.size is not None
        return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in images.split(self.size)])

    def _encode(self, encode: Encode, images: Tensor) -> Tensor:
        if self.size is None or self.size >= len(images):
            return encode(images)
        return torch.cat([encode(part) for part in images.split(self.size)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that host or GPU memory has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or is_oom_error(error):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_WORKSPACE)
