"""Frozen weight matrices that are stored in half precision and read as what they were.

Stored are those of nn.Linear, nn.MultiheadAttention and nn.Embedding, which are nearly all of a transformer. Kernels of
convolutions, norms, biases, bare parameters such as a projection, whatever trains, and a matrix that its parent hands
to a function (as BEiT's attention does with that of ``qkv``: autograd would keep a widened copy) stay as they are.
Adapted weights are still added up in the adapters' precision: every number is that of the rounded weights in single
precision, bit for bit.
"""

import functools
import inspect
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kravl.adapters.injection.parameter import adapters_of, reads_adapted
from kravl.runtime.errors import InputError

HALF = torch.bfloat16


def stored_types(
    model: nn.Module, trained: Iterable[nn.Parameter], dtype: torch.dtype | None
) -> dict[nn.Parameter, torch.dtype]:
    """The parameters that are stored in ``dtype``, each with the type that it is read in; none without one.

    Raises:
        InputError: ``dtype`` is not bfloat16.
    """
    if dtype is None:
        return {}
    if dtype != HALF:
        raise InputError(f"frozen_dtype must be {HALF} or None, not {dtype}")
    return {parameter: parameter.dtype for parameter in storable(model, trained)}


def storable(model: nn.Module, trained: Iterable[nn.Parameter] = ()) -> list[nn.Parameter]:
    """The matrices of ``model`` that can be stored in half precision: every module that has one reads it by its class.

    ``trained`` are parameters that are to train besides adapters.
    """
    kept = {id(parameter) for parameter in trained}
    handed_out = {
        child
        for module in model.modules()
        for name, child in module._modules.items()
        if _hands_out(type(module), name)  # type: ignore[arg-type]
    }
    readers: dict[nn.Parameter, list[bool]] = defaultdict(list)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                readers[parameter].append(name == _stored_name(module) and module not in handed_out)
    matrices = (p for p, can_read in readers.items() if all(can_read) and id(p) not in kept)
    return [p for p in matrices if p.dtype in (torch.float32, torch.float64)]


@functools.cache
def _hands_out(parent: type[nn.Module], child: str) -> bool:
    """Whether the code of ``parent`` reads the weight of its ``child`` in place of calling it.

    Of torch's own modules nn.MultiheadAttention does, and becomes `AdaptedAttention`, which does not.
    """
    own = [cls for cls in parent.__mro__ if issubclass(cls, nn.Module) and not cls.__module__.startswith("torch.")]
    return any(f"self.{child}.weight" in _source(cls) for cls in own)


def _source(cls: type) -> str:
    """The code of ``cls``; empty where there is none, as of what is typed into an interpreter."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""


def _stored_name(module: nn.Module) -> str | None:
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return "weight"
    if type(module) is nn.MultiheadAttention:
        return "in_proj_weight"
    plain = type(module) is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq
    return "weight" if plain else None


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype, trained: Iterable[nn.Parameter] = ()) -> None:
    """Round what can be stored in ``dtype`` to its numbers, in place; the parameters keep their type.

    ``trained`` are parameters that are to train besides adapters.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> _ = model[0].weight.data.fill_(1 / 3)
        >>> round_weights(model, torch.bfloat16)
        >>> model[0].weight.dtype, round(model[0].weight[0, 0].item(), 4)
        (torch.float32, 0.334)
    """
    for parameter in storable(model, trained):
        parameter.copy_(parameter.to(dtype))


class StoredEmbedding(nn.Embedding):
    """An nn.Embedding whose table is stored in half precision; `inject` swaps the class."""

    weight = reads_adapted("weight")

    def forward(self, input: Tensor) -> Tensor:
        table = self._parameters["weight"]
        assert table is not None
        return F.embedding(input, table, self.padding_idx).to(adapters_of(self).read_type(table))


def stored_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear of ``x`` (..., in) with a ``weight`` (out, in) of less precision, widened in each pass and not kept."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.linear(x, weight.to(x.dtype), bias)
    return _StoredLinear.apply(x, weight, bias)


class _StoredLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad_x = gradient @ weight.to(gradient.dtype) if ctx.needs_input_grad[0] else None
        grad_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, None, grad_bias
