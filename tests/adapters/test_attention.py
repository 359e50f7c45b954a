"""Adapted attention against nn.MultiheadAttention: equal bits at the start, equal to merged weights afterwards."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.attention import AdaptedAttention
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA

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


def move(adapters):
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)


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


RARE = {
    "weights returned": {"need_weights": True},
    "weights of each head": {"need_weights": True, "average_attn_weights": False},
    "padding": {"need_weights": False, "key_padding_mask": torch.arange(LENGTH).expand(BATCH, -1) >= 3},
    "padding and mask": {
        "need_weights": False,
        "key_padding_mask": torch.arange(LENGTH).expand(BATCH, -1) >= 3,
        "attn_mask": mask("bool"),
    },
    "causal hint": {"need_weights": False, "attn_mask": mask("infinite"), "is_causal": True},
    "causal hint and weights": {"need_weights": True, "attn_mask": mask("infinite"), "is_causal": True},
}


@pytest.mark.parametrize("make", [KRAdapter, partial(LoRA, rank=2, alpha=2)], ids=["kra", "lora"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", RARE)
def test_every_way_to_call_it_sees_the_adapters(name, train, make):
    model, x = attention().train(train), tokens()
    reference = copy.deepcopy(model)
    adapters = inject(model, make, TARGETS)
    move(adapters)
    adapters.merge()
    reference.load_state_dict({k: v for k, v in model.state_dict().items() if ".adapters." not in k})
    adapters.unmerge()

    y, weights = model["attn"](x, x, x, **RARE[name])
    gradients = torch.autograd.grad(y.sum(), adapters.parameters())

    expected, expected_weights = reference["attn"](x, x, x, **RARE[name])
    torch.testing.assert_close(y, expected)
    assert (weights is None) == (expected_weights is None)
    assert weights is None or torch.allclose(weights, expected_weights, atol=1e-6)
    assert all(gradient.count_nonzero() > 0 for gradient in gradients)


@pytest.mark.parametrize("batch_first", [True, False])
def test_cross_attention_sees_the_adapters(batch_first):
    model, x, memory = attention(batch_first), tokens(batch_first), tokens(batch_first, length=7)
    adapters = inject(model, KRAdapter, TARGETS)
    before = model["attn"](x, memory, memory, need_weights=False)[0]
    move(adapters)

    adapted = model["attn"](x, memory, memory, need_weights=False)[0]
    adapters.merge()
    merged = model["attn"](x, memory, memory, need_weights=False)[0]

    assert not torch.allclose(adapted, before, atol=1e-2)
    torch.testing.assert_close(merged, adapted)


def test_an_unbatched_sequence_sees_the_adapters():
    model, x = attention(), tokens()
    move(inject(model, KRAdapter, TARGETS))

    y = model["attn"](x[0], x[0], x[0], need_weights=False)[0]

    torch.testing.assert_close(y, model["attn"](x, x, x, need_weights=False)[0][0])


def test_extra_bias_keys_see_the_adapters():
    model, x = attention(add_bias_kv=True, add_zero_attn=True), tokens()
    adapters = inject(model, KRAdapter, TARGETS)
    move(adapters)

    adapted = model["attn"](x, x, x, need_weights=False)[0]
    adapters.merge()

    torch.testing.assert_close(model["attn"](x, x, x, need_weights=False)[0], adapted)


def test_attention_dropout_acts_in_training_only():
    model, x = attention(dropout=0.5), tokens()
    inject(model, KRAdapter, TARGETS)

    trained = model.train()["attn"](x, x, x, need_weights=False)[0]
    evaluated = model.eval()["attn"](x, x, x, need_weights=False)[0]
    without = attention()["attn"](x, x, x, need_weights=False)[0]

    assert not torch.allclose(trained, evaluated)
    assert torch.equal(evaluated, without)


def test_an_adapter_on_out_proj_alone_is_not_skipped():
    """nn.MultiheadAttention never calls out_proj as a module: the trap of wrapped layers."""
    model, x = attention(), tokens()
    before = model["attn"](x, x, x, need_weights=False)[0]
    adapters = inject(model, partial(LoRA, rank=2, alpha=2), ["attn.out_proj"])
    calls = []
    model["attn"].out_proj.register_forward_hook(lambda *_: calls.append(1))
    move(adapters)

    adapted = model["attn"](x, x, x, need_weights=False)[0]
    adapted.sum().backward()

    assert calls == [1]
    assert not torch.allclose(adapted, before, atol=1e-2)
    assert all(parameter.grad.count_nonzero() > 0 for parameter in adapters.parameters())


@pytest.mark.parametrize("need_weights", [True, False])
def test_the_fused_inference_kernel_does_not_skip_the_adapters(need_weights):
    """In eval mode without gradient nn.MultiheadAttention leaves Python altogether."""
    model, x = attention().eval(), tokens()
    move(inject(model, KRAdapter, TARGETS))
    slow = model["attn"](x, x, x, need_weights=need_weights)[0]
    torch.backends.mha.set_fastpath_enabled(True)

    with torch.no_grad():
        fast = model["attn"](x, x, x, need_weights=need_weights)[0]

    torch.testing.assert_close(fast, slow)


def test_a_whole_encoder_layer_does_not_skip_the_adapters():
    """nn.TransformerEncoderLayer has an inference kernel of its own, which reads the weights of its attention."""
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True).eval(), tokens()
    before = model(x)
    move(inject(model, KRAdapter, ["self_attn.qkv", "self_attn.out_proj", "linear1"]))
    slow = model(x)
    torch.backends.mha.set_fastpath_enabled(True)

    with torch.no_grad():
        fast = model(x)

    assert not torch.allclose(slow, before, atol=1e-2)
    torch.testing.assert_close(fast, slow)
