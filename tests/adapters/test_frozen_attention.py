"""Attention blocks that nothing adapts: PyTorch's layer multiplies their frozen weights slowly in bf16 on a CPU."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kravl.adapters.injection.attention import AdaptedAttention
from kravl.adapters.injection.inject import inject

WIDTH, HEADS = 32, 4


class Operations(TorchDispatchMode):
    """The names of all that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def attention() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"attn": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)}).requires_grad_(False)


def products(model: nn.Module) -> list[str]:
    x = torch.randn(3, 5, WIDTH)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Operations() as operations:
        model["attn"](x, x, x, need_weights=False)
    return [name for name in operations.names if "mm" in name]


def test_frozen_weights_are_multiplied_as_two_matrices_and_not_once_for_each_image(attention):
    before = products(attention)
    inject(attention, None, [])

    assert type(attention["attn"]) is AdaptedAttention
    assert any("bmm" in name for name in before), "PyTorch's layer is as fast now: the swap of plain layers may go"
    assert products(attention) == ["aten::mm", "aten::addmm"]
