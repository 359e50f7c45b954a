"""Calls of nn.MultiheadAttention that are rare, or that leave out what hangs on its parts."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA

TARGETS = ["attn.q", "attn.v", "attn.out_proj"]
LENGTH, BATCH, WIDTH, HEADS = 5, 3, 24, 4
CAUSAL = torch.ones(LENGTH, LENGTH).triu(1).bool()
INFINITE = torch.zeros(LENGTH, LENGTH).masked_fill(CAUSAL, float("-inf"))
PADDING = torch.arange(LENGTH).expand(BATCH, -1) >= 3
RARE = {
    "weights returned": {"need_weights": True},
    "weights of each head": {"need_weights": True, "average_attn_weights": False},
    "padding": {"need_weights": False, "key_padding_mask": PADDING},
    "padding and mask": {"need_weights": False, "key_padding_mask": PADDING, "attn_mask": CAUSAL},
    "causal hint": {"need_weights": False, "attn_mask": INFINITE, "is_causal": True},
    "causal hint and weights": {"need_weights": True, "attn_mask": INFINITE, "is_causal": True},
}


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


@pytest.mark.parametrize("make", [KRAdapter, partial(LoRA, rank=2, alpha=2)], ids=["kra", "lora"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", RARE)
def test_every_way_to_call_it_sees_the_adapters(name, train, make, perturb):
    model, x = attention().train(train), tokens()
    reference = copy.deepcopy(model)
    adapters = inject(model, make, TARGETS)
    perturb(adapters)
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
def test_cross_attention_sees_the_adapters(batch_first, perturb):
    model, x, memory = attention(batch_first), tokens(batch_first), tokens(batch_first, length=7)
    adapters = inject(model, KRAdapter, TARGETS)
    before = model["attn"](x, memory, memory, need_weights=False)[0]
    perturb(adapters)

    adapted = model["attn"](x, memory, memory, need_weights=False)[0]
    adapters.merge()
    merged = model["attn"](x, memory, memory, need_weights=False)[0]

    assert not torch.allclose(adapted, before, atol=1e-2)
    torch.testing.assert_close(merged, adapted)


def test_an_unbatched_sequence_sees_the_adapters(perturb):
    model, x = attention(), tokens()
    perturb(inject(model, KRAdapter, TARGETS))

    y = model["attn"](x[0], x[0], x[0], need_weights=False)[0]

    torch.testing.assert_close(y, model["attn"](x, x, x, need_weights=False)[0][0])


def test_extra_bias_keys_see_the_adapters(perturb):
    model, x = attention(add_bias_kv=True, add_zero_attn=True), tokens()
    adapters = inject(model, KRAdapter, TARGETS)
    perturb(adapters)

    adapted = model["attn"](x, x, x, need_weights=False)[0]
    adapters.merge()

    torch.testing.assert_close(model["attn"](x, x, x, need_weights=False)[0], adapted)


def test_an_adapter_on_out_proj_alone_is_not_skipped(perturb):
    """nn.MultiheadAttention never calls out_proj as a module: the trap of wrapped layers."""
    model, x = attention(), tokens()
    before = model["attn"](x, x, x, need_weights=False)[0]
    adapters = inject(model, partial(LoRA, rank=2, alpha=2), ["attn.out_proj"])
    calls = []
    model["attn"].out_proj.register_forward_hook(lambda *_: calls.append(1))
    perturb(adapters)

    adapted = model["attn"](x, x, x, need_weights=False)[0]
    adapted.sum().backward()

    assert calls == [1]
    assert not torch.allclose(adapted, before, atol=1e-2)
    assert all(parameter.grad.count_nonzero() > 0 for parameter in adapters.parameters())


@pytest.mark.parametrize("need_weights", [True, False])
def test_the_fused_inference_kernel_does_not_skip_the_adapters(need_weights, perturb):
    """In eval mode without gradient nn.MultiheadAttention leaves Python altogether."""
    model, x = attention().eval(), tokens()
    perturb(inject(model, KRAdapter, TARGETS))
    slow = model["attn"](x, x, x, need_weights=need_weights)[0]
    torch.backends.mha.set_fastpath_enabled(True)

    with torch.no_grad():
        fast = model["attn"](x, x, x, need_weights=need_weights)[0]

    torch.testing.assert_close(fast, slow)


def test_a_whole_encoder_layer_does_not_skip_the_adapters(perturb):
    """nn.TransformerEncoderLayer has an inference kernel of its own, which reads the weights of its attention."""
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True).eval(), tokens()
    before = model(x)
    perturb(inject(model, KRAdapter, ["self_attn.qkv", "self_attn.out_proj", "linear1"]))
    slow = model(x)
    torch.backends.mha.set_fastpath_enabled(True)

    with torch.no_grad():
        fast = model(x)

    assert not torch.allclose(slow, before, atol=1e-2)
    torch.testing.assert_close(fast, slow)
