"""What training must not change: whatever of the model is neither trained nor saved with what trains."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

CHUNK = 2**20  # elements that are added up at a time, so that no copy of a large tensor is made
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per element
NAMED = 5


class UnsavedChangeError(RuntimeError):
    """Training has changed a part of the model that no file of the run would have."""


class FrozenState(Callback):
    """Compares frozen parameters and persistent buffers before training with those after its first step and at its end.

    Raises:
        UnsavedChangeError: one of them differs, before anything is saved that would lack it.
    """

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._compared = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before, self._compared = _checksums(_unsaved(pl_module)), False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if not self._compared:
            self._compared = True
            self._compare(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare(pl_module)

    def _compare(self, pl_module: LightningModule) -> None:
        after = _checksums(_unsaved(pl_module))
        changed = [name for name in self._before if self._before[name] != after.get(name)]
        if changed:
            named = ", ".join(changed[:NAMED]) + (f" and {len(changed) - NAMED} more" if len(changed) > NAMED else "")
            raise UnsavedChangeError(
                f"training changes {len(changed)} tensors that are not trained and would not be saved: {named}; "
                "unfreeze those that are parameters, set train_statistics=true for those that norms keep, or have the "
                "model leave the others alone"
            )


def _unsaved(module: LightningModule) -> dict[str, Tensor]:
    """Parameters and persistent buffers of the classifier that the state of the LightningModule does not have."""
    saved = module.state_dict().keys()
    state: Mapping[str, Tensor] = module.classifier.state_dict(prefix="classifier.")  # type: ignore[union-attr]
    return {name: tensor for name, tensor in state.items() if name not in saved and isinstance(tensor, Tensor)}


@torch.no_grad()
def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """For each tensor the sum of its bits read as integers: exact, whatever the device and the order of adding."""
    sums: dict[str, Tensor] = {name: _sum(_pieces(tensor), tensor.device) for name, tensor in tensors.items()}
    return {name: int(total.item()) for name, total in sums.items()}


def _pieces(tensor: Tensor) -> Iterable[Tensor]:
    return tensor.detach().flatten().view(INTEGERS[tensor.element_size()]).split(CHUNK)


def _sum(pieces: Iterable[Tensor], device: torch.device) -> Tensor:
    total = torch.zeros((), dtype=torch.int64, device=device)
    for piece in pieces:
        total += piece.sum(dtype=torch.int64)
    return total
