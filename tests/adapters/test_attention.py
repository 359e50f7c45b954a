"""Adapted attention against nn.MultiheadAttention: equal bits at the start, equal to merged weights afterwards."""

import pytest
import torch
from torch import nn

from kravl.adapters.attention import AdaptedAttention
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter

TARGETS = ["attn.q", "attn.v", "attn.out_proj"]
LENGTH, BATCH, WIDTH, HEADS = 5, 3, 24, 4


def attention(batch_first=True, dropout=0.0, **kwargs):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, dropout=dropout, **kwargs)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return nn.ModuleDict({"attn": layer})


def tokens(batch_first=True, length=LENGTH):
    torch.manual_seed(1)
    x = torch.randn(BATCH, length, WIDTH)
    return x if batch_first else x.transpose(0, 1).contiguous()


def mask(kind):
    torch.manual_seed(3)
    causal = torch.ones(LENGTH, LENGTH).triu(1)
    return {
        "none": None,
        "float": causal * -10.0,
        "infinite": torch.zeros(LENGTH, LENGTH).masked_fill(causal.bool(), float("-inf")),
        "bool": causal.bool(),
        "each head": torch.randn(BATCH * HEADS, LENGTH, LENGTH),
        "bool each head": causal.bool().expand(BATCH * HEADS, -1, -1),
    }[kind]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["none", "float", "infinite", "bool", "each head", "bool each head"])
def test_output_and_input_gradient_start_with_the_bits_of_torch(kind, batch_first, dtype):
    model, x = attention(batch_first).to(dtype), tokens(batch_first).to(dtype).requires_grad_()
    attn_mask = mask(kind) if kind == "none" or mask(kind).dtype == torch.bool else mask(kind).to(dtype)

    def run():
        y, weights = model["attn"](x, x, x, need_weights=False, attn_mask=attn_mask)
        assert weights is None
        return y, *torch.autograd.grad(y.float().square().sum(), x)

    before = run()
    inject(model, KRAdapter, TARGETS)
    after = run()

    assert type(model["attn"]) is AdaptedAttention
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("width", [384, 512, 768])
def test_wide_layers_start_with_the_bits_of_torch(width):
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(width, width // 64, batch_first=True)})
    nn.init.normal_(model["attn"].in_proj_bias)
    x = torch.randn(2, 3, width)

    before = model["attn"](x, x, x, need_weights=False)[0]
    inject(model, KRAdapter, ["attn.qkv"])

    assert torch.equal(model["attn"](x, x, x, need_weights=False)[0], before)


def test_attention_dropout_acts_in_training_only():
    model, x = attention(dropout=0.5), tokens()
    inject(model, KRAdapter, TARGETS)

    trained = model.train()["attn"](x, x, x, need_weights=False)[0]
    evaluated = model.eval()["attn"](x, x, x, need_weights=False)[0]
    without = attention()["attn"](x, x, x, need_weights=False)[0]

    assert not torch.allclose(trained, evaluated)
    assert torch.equal(evaluated, without)
