"""A frozen parameter that reads as its adapted value: a swap of classes that works for any module."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, without_autocast


class AdaptedRows(NamedTuple):
    """An adapter, the rows of the weight that it adapts, and its dropout mask for one forward (`Adapter.draw_mask`)."""

    adapter: Adapter
    rows: slice
    mask: Tensor | None = None

    def draw(self, x: Tensor | None = None) -> "AdaptedRows":
        """The same block with a newly drawn mask, for an input ``x`` (..., in) where there is one."""
        return self._replace(mask=self.adapter.draw_mask(x))


class AdapterList(nn.ModuleList):
    """The adapters of one module (its child ``adapters``), each with the parameter and the rows that it adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[str, slice]] = []
        self.merged = False
        self.read_as: torch.dtype | None = None  # the type in which readers get a weight that is stored in another

    def add(self, adapter: Adapter, param: str, rows: slice) -> None:
        self.append(adapter)
        self.places.append((param, rows))

    def of(self, param: str) -> list[AdaptedRows]:
        """The blocks that adapt ``param``; none while they are merged into it."""
        if self.merged:
            return []
        placed = zip(self, self.places, strict=True)
        return [AdaptedRows(adapter, rows) for adapter, (name, rows) in placed if name == param]  # type: ignore[arg-type]

    def read_type(self, weight: Tensor) -> torch.dtype:
        """The type in which readers get ``weight``."""
        return torch.promote_types(weight.dtype, self.read_as or weight.dtype)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.merged)

    def set_extra_state(self, state: Tensor) -> None:
        # merged weights loaded beside live adapters would apply the update twice
        if bool(state) != self.merged:
            saved, current = ("merged", "not merged") if state else ("not merged", "merged")
            raise RuntimeError(f"the state was saved with adapters {saved}, but this model's are {current}")


def adapters_of(module: nn.Module) -> AdapterList:
    """The adapters that `inject` attached to ``module``."""
    adapters = module._modules["adapters"]
    assert isinstance(adapters, AdapterList)
    return adapters


def adapted_weight(weight: Tensor, blocks: Sequence[AdaptedRows]) -> Tensor:
    """``weight``, (out, in) or a kernel, plus the update of each block on its rows, in the wider of the two dtypes.

    Computed outside autocast: a bf16 product of LoRA factors would lose the small updates of early training.
    """
    with without_autocast(weight.device.type):
        updates = [block.adapter(weight[block.rows].flatten(1), block.mask) for block in blocks]
        if len(updates) == 1 and updates[0].shape[0] == weight.shape[0]:
            return weight + updates[0].view(weight.shape)
        dtypes = [update.dtype for update in updates]
        result = weight.to(functools.reduce(torch.promote_types, dtypes, weight.dtype), copy=True)
        for block, update in zip(blocks, updates, strict=True):
            result[block.rows] += update
        return result


def reads_adapted(param: str) -> property:
    """A property that yields parameter ``param`` with its updates to every reader; the parameter itself is unchanged.

    Attention layers that hand ``self.out_proj.weight`` to a function, and never call ``out_proj``, get the adapted one.
    """

    def read(module: nn.Module) -> Tensor:
        weight, blocks = module._parameters[param], adapters_of(module).of(param)
        assert weight is not None
        dtype = adapters_of(module).read_type(weight)
        return (adapted_weight(weight, [block.draw() for block in blocks]) if blocks else weight).to(dtype)

    return property(read)


@functools.cache
def adapted_class(cls: type[nn.Module], params: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of ``cls`` whose parameters ``params`` read as adapted; one class for equal arguments."""

    def reduce(module: nn.Module, protocol: int) -> tuple[object, ...]:
        return _new_adapted, (cls, params), module.__getstate__()  # pickle cannot find a class created here by its name

    properties = {param: reads_adapted(param) for param in params}
    return type(f"Adapted{cls.__name__}", (cls,), {**properties, "__reduce_ex__": reduce, "__module__": __name__})


def _new_adapted(cls: type[nn.Module], params: tuple[str, ...]) -> nn.Module:
    swapped = adapted_class(cls, params)  # type: ignore[arg-type]
    return swapped.__new__(swapped)
