"""Under bf16 autocast the adapted product is no further from float64 than plain PyTorch is."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kravl.adapters.injection.linear import adapted_linear
from kravl.adapters.injection.parameter import AdaptedRows
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.low_rank import LowRankAdapter
from kravl.adapters.randlora import RandLoRA

METHODS = {"kra": KRAdapter, "lora": partial(LoRA, rank=8, alpha=8), "randlora": partial(RandLoRA, rank=6, alpha=120)}


def plain(x: Tensor, weight: Tensor, adapter) -> Tensor:
    """Factor by factor where there are factors, as PEFT does; else with the adapted weight."""
    if not isinstance(adapter, LowRankAdapter):
        return F.linear(x, weight + adapter.update(weight))
    up, down = adapter.factors()
    return F.linear(x, weight) + adapter.scale * F.linear(F.linear(x, down), up)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("out", "columns"), [(192, 64), (64, 192)])
@pytest.mark.parametrize("tokens", [20, 600])
def test_bf16_is_as_close_to_float64_as_plain_autocast(name, out, columns, tokens):
    torch.manual_seed(0)
    weight, adapter = torch.randn(out, columns) / columns**0.5, METHODS[name](out, columns)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02 * parameter.requires_grad)
    x, pull = torch.randn(tokens, columns).requires_grad_(), torch.randn(tokens, out)
    inputs = [x, *(parameter for parameter in adapter.parameters() if parameter.requires_grad)]

    def errors(multiply) -> list[float]:
        with torch.autocast("cpu", torch.bfloat16):
            y = multiply()
        values = [y, *torch.autograd.grad(y, inputs, pull.to(y.dtype))]
        output, images, *parameters = [(a.double() - b).norm() for a, b in zip(values, exact, strict=True)]
        return [output.item(), images.item(), torch.stack(parameters).norm().item()]  # of all parameters together

    twin, x64 = copy.deepcopy(adapter).double(), x.detach().double().requires_grad_()
    y64 = plain(x64, weight.double(), twin)
    trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    exact = [y64, *torch.autograd.grad(y64, [x64, *trained], pull.double())]
    actual = errors(lambda: adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, out))]))
    torchs = errors(lambda: plain(x, weight, adapter))

    assert all(error > 0 for error in actual)
    assert all(a < 1.1 * b for a, b in zip(actual, torchs, strict=True)), (actual, torchs)
