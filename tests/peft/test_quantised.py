"""Quantised bases, by PEFT's generic path; on a CPU, where bitsandbytes is installed."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from kravl.peft import KRAdapterConfig

bnb = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")


def quantised(kind: str) -> nn.Module:
    linear = nn.Linear(64, 96)
    if kind == "int8":
        layer = bnb.nn.Linear8bitLt(64, 96, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        layer = bnb.nn.Linear4bit(64, 96, quant_type=kind, compute_dtype=torch.float32)
        layer.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type=kind)
    layer.bias = linear.bias
    return nn.Sequential(layer.to("cpu"))


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.02), ("nf4", 0.2), ("fp4", 0.25)])
@pytest.mark.filterwarnings("ignore")  # of bitsandbytes on a CPU, and the one that says what merging lost
def test_the_update_is_added_to_a_quantised_layer_exactly_and_merged_as_well_as_its_grid_allows(kind, tolerance):
    base, x = quantised(kind), torch.randn(5, 64)
    before = base(x).detach()
    model = get_peft_model(base, KRAdapterConfig(target_modules=["0"]))
    layer = model.base_model.model[0]
    assert torch.equal(model(x), before)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)

    y = model(x)

    torch.testing.assert_close(y - before, x @ layer.get_delta_weight("default").T, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)
    model.merge_adapter()
    assert (model(x) - y).norm() < tolerance * y.norm()
    error, whole = layer.lost
    assert 0 < error < whole
