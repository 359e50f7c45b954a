"""Adapted attention starts with the bits of kravl's own without adapters, and equals nn.MultiheadAttention."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kravl.adapters.injection.attention import AdaptedAttention
from kravl.adapters.injection.inject import inject
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
def test_output_and_input_gradient_start_as_those_of_torch(kind, batch_first, dtype, unadapted):
    model, x = attention(batch_first).to(dtype), tokens(batch_first).to(dtype).requires_grad_()
    attn_mask = mask(kind) if kind == "none" or mask(kind).dtype == torch.bool else mask(kind).to(dtype)

    def run(model):
        y, weights = model["attn"](x, x, x, need_weights=False, attn_mask=attn_mask)
        assert weights is None
        return y, *torch.autograd.grad(y.float().square().sum(), x)

    torchs, plain = run(model), run(unadapted(model))
    inject(model, KRAdapter, TARGETS)
    actual = run(model)

    assert type(model["attn"]) is AdaptedAttention
    assert torch.equal(actual[0], plain[0])
    # Sums in another order: at most an eps of a sum for each of its terms, in four products. In bfloat16 sums are exact
    # beside the rounding of each result: q, k, v, probabilities, their product with v, y and their gradients.
    roundings = 8 if dtype == torch.bfloat16 else 4 * WIDTH
    for a, b in zip(actual, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=roundings * torch.finfo(dtype).eps * b.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("width", [384, 512, 768])
def test_wide_layers_round_where_torch_rounds(width, batch_first, dtype):
    """The same operations on the rows in their present order: torch moves the batch to the second place first."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(width, width // 64, batch_first=batch_first, dtype=dtype).requires_grad_(False)
    nn.init.normal_(layer.in_proj_bias)
    x = torch.randn(2, 3, width, dtype=dtype)
    model = nn.ModuleDict({"attn": layer})
    plain = copy.deepcopy(layer)
    inject(model, KRAdapter, ["attn.qkv"])

    actual = model["attn"](x, x, x, need_weights=False)[0]

    if batch_first:  # scattered once the batch is moved, and torch adds the bias to scattered rows apart
        packed = F.linear(x, plain.in_proj_weight) + plain.in_proj_bias
    else:
        packed = F.linear(x, plain.in_proj_weight, plain.in_proj_bias)
    q, k, v = packed.view(2, 3, 3, width // 64, 64).permute((2, 0, 3, 1, 4) if batch_first else (2, 1, 3, 0, 4))
    y = F.scaled_dot_product_attention(q, k, v).permute((0, 2, 1, 3) if batch_first else (2, 0, 1, 3))
    assert torch.equal(actual, plain.out_proj(y.reshape(x.shape)))


def test_attention_dropout_acts_in_training_only(unadapted):
    model, x = attention(dropout=0.5), tokens()
    inject(model, KRAdapter, TARGETS)

    trained = model.train()["attn"](x, x, x, need_weights=False)[0]
    evaluated = model.eval()["attn"](x, x, x, need_weights=False)[0]
    without = unadapted(attention())["attn"](x, x, x, need_weights=False)[0]

    assert not torch.allclose(trained, evaluated)
    assert torch.equal(evaluated, without)
