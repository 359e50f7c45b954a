"""The parameters of a small module by name, and a copy with others in their place; called in every layer of a step."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def named(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    """As named_parameters, which takes ten times as long; a parameter of two names has both."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, child in module._modules.items():
        if child is not None:
            yield from named(child, f"{prefix}{name}.")


def bound(module: M, parameters: Mapping[str, Tensor], prefix: str) -> M:
    """A copy of ``module`` with other tensors as the ``parameters`` of these names; all else is shared."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    own, children = module._parameters, module._modules
    twin._parameters = {name: parameters.get(prefix + name, own[name]) for name in own}  # type: ignore[misc]
    twin._modules = {name: child and bound(child, parameters, f"{prefix}{name}.") for name, child in children.items()}
    return twin
