"""What can be asked of an encoder without memory for its weights (on the meta device): its towers, and their work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kravl.backbones.preprocess import timm_preprocess
from kravl.backbones.timm_heads import head_inputs, heads

# what a model raises that cannot be run on the meta device
UNRUNNABLE = (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True)
class Work:
    """Of one forward pass: floating-point operations, numbers kept for the backward pass, width of the features."""

    operations: int
    kept: int
    width: int


class Skeleton:
    """An open_clip or timm ``encoder`` on the meta device, as `Classifier.skeleton` returns it."""

    def __init__(self, encoder: nn.Module, image_size: Any = None) -> None:
        self.encoder: Any = encoder
        self._size = image_size
        self._two_towers = isinstance(getattr(encoder, "visual", None), nn.Module)

    def head(self) -> list[nn.Parameter]:
        """Parameters of a head that is new; those of CLIP are its text features, and no parameters."""
        return [] if self._two_towers else [p for head in heads(self.encoder) for p in head.parameters()]

    def token_embedding(self) -> list[nn.Parameter]:
        """The weight of a text tower's token embedding; empty without one."""
        embedding = getattr(getattr(self.encoder, "text", self.encoder), "token_embedding", None)
        return list(embedding.parameters()) if isinstance(embedding, nn.Embedding) else []

    def of_image_tower(self) -> set[int]:
        """Identities of the parameters that an image passes through, without those of a new `head`."""
        tower = self.encoder.visual if self._two_towers else self.encoder
        return {id(p) for p in tower.parameters()} - set(map(id, self.head()))

    def image(self, trained: Sequence[nn.Parameter]) -> Work | None:
        """The work for one image where these parameters train; None where the model does not run on this device."""
        return self._work(self._one_image, trained)

    def prompts(self, count: int, trained: Sequence[nn.Parameter]) -> Work | None:
        """The work for so many whole prompts."""
        tokens = torch.zeros(1, int(self.encoder.context_length), dtype=torch.long, device="meta")
        one = self._work(lambda: self.encoder.encode_text(tokens), trained)
        return one and Work(count * one.operations, count * one.kept, one.width)

    @property
    def _height_width(self) -> tuple[int, int]:
        known = timm_preprocess(self.encoder.pretrained_cfg, {}, self._size) if not self._two_towers else None
        size = known.image_size if known else self.encoder.visual.image_size
        return (size[0], size[1]) if isinstance(size, tuple | list) else (size, size)

    @property
    def pixels(self) -> int:
        """Of one image as the model takes it."""
        height, width = self._height_width
        return height * width

    def _one_image(self) -> Tensor:
        image = torch.zeros(1, 3, *self._height_width, device="meta")
        features = [self.encoder.encode_image(image)] if self._two_towers else head_inputs(self.encoder, image)
        return torch.cat(features, dim=1)

    def _work(self, forward: Callable[[], Tensor], trained: Sequence[nn.Parameter]) -> Work | None:
        self.encoder.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        try:
            with FlopCounterMode(display=False) as counter, _kept(self.encoder) as kept:
                width = forward().shape[-1]
        except UNRUNNABLE:
            return None
        return Work(counter.get_total_flops(), sum(kept.values()), width)


@contextmanager
def _kept(model: nn.Module) -> Iterator[dict[int, int]]:
    """Within the block, storage -> numbers of each tensor that autograd keeps, besides the weights themselves."""
    weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    numbers: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no other storage gets the identity of one

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            alive.append(tensor)
            numbers[storage._cdata] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield numbers
