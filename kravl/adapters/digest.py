"""One hash of named tensors: of their names, shapes, types and bytes."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest that does not depend on the order or the device of ``tensors``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
