"""Batches cut into pieces where memory runs out: fewer images at a time, the same result."""

import gc
import logging
from collections.abc import Callable

import torch
from pytorch_lightning.utilities.memory import is_oom_error
from torch import Tensor
from torch.utils.checkpoint import checkpoint

log = logging.getLogger(__name__)
Encode = Callable[[Tensor], Tensor]


class OutOfMemory(RuntimeError):  # noqa: N818 (the condition's name)
    """Memory runs out with one image at a time, or where a batch cannot be cut; says which setting to change."""


class MicroBatches:
    """At most ``size`` images at a time; None is all of a batch."""

    def __init__(self) -> None:
        self.size: int | None = None

    def halve(self, batch: int, setting: str) -> None:
        """Take half as many images at a time, of batches of ``batch``, as ``setting`` has them.

        Raises:
            OutOfMemory: it was one image already.
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
        log.warning("out of memory: %s=%d in %d pieces of %d from here on", setting, batch, count, self.size)

    def encode(self, encode: Encode, images: Tensor, setting: str) -> Tensor:
        """``encode(images)`` without gradients, tried again in smaller pieces until it fits."""
        while True:
            try:
                return self._encode(encode, images)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self.halve(len(images), setting)  # out here, where the failed try's tensors are gone

    def encode_checkpointed(self, encode: Encode, images: Tensor) -> Tensor:
        """``encode(images)`` whose backward pass computes each piece again: the activations of one are held at a time.

        The gradient is that of the whole batch, as if each piece had been accumulated.
        """
        assert self.size is not None
        return torch.cat([checkpoint(encode, piece, use_reentrant=False) for piece in images.split(self.size)])

    def _encode(self, encode: Encode, images: Tensor) -> Tensor:
        if self.size is None or self.size >= len(images):
            return encode(images)
        return torch.cat([encode(piece) for piece in images.split(self.size)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of a GPU, has run out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_oom_error(error)
