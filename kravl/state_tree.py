"""The nested dictionary of a training state as plain JSON, its tensors apart."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; tensors are put aside under numbers, dictionaries become lists of pairs (keys may be ints)."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [encode(item, tensors) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), f"cannot save a {type(value).__name__}"
    return value


def decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `encode`. Raises ValueError, KeyError or TypeError for what `encode` did not make."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in content)
    return {key: decode(item, tensors) for key, item in content}
