"""Whoever reads an adapted weight gets the adapted one, whether or not its layer is called."""

from functools import partial

import pytest
import torch
from open_clip.transformer import Attention, AttentionalPooler
from torch import nn
from torch.nn import functional as F

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA

make_lora = partial(LoRA, rank=2, alpha=2)


def test_a_weight_shared_by_two_layers_is_adapted_in_both(perturb):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 10, bias=False))
    model[0].weight = model[2].weight
    adapters = inject(model, KRAdapter, ["2"])
    tokens = torch.arange(10)
    before = model(tokens)
    perturb(adapters)

    adapted = model(tokens)
    adapters.merge()
    merged = model(tokens)
    adapters.merge_and_unload()

    assert not torch.allclose(adapted, before, atol=1e-2)
    torch.testing.assert_close(merged, adapted)
    assert model[0].weight is model[2].weight
    assert [type(module) for module in model] == [nn.Embedding, nn.Linear, nn.Linear]


class Bypassing(nn.Module):
    """Reads the weight of its layer and does not call it, as attention layers with a bias of their own do."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        return F.linear(x, self.qkv.weight)


@pytest.mark.parametrize("make", [KRAdapter, make_lora], ids=["kra", "lora"])
def test_a_layer_that_is_read_and_not_called_is_adapted(make, perturb):
    model, x = Bypassing(), torch.randn(2, 6)
    before = model(x)
    adapters = inject(model, make, ["q", "v"])
    perturb(adapters)

    adapted = model(x)
    adapted.sum().backward()
    adapters.merge()

    assert not torch.allclose(adapted, before, atol=1e-3)
    assert all(parameter.grad.count_nonzero() > 0 for parameter in adapters.parameters())
    torch.testing.assert_close(model(x), adapted)


def test_a_linear_with_a_forward_of_its_own_keeps_it(perturb):
    class Doubling(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model, x = nn.Sequential(Doubling(4, 4)), torch.randn(2, 4)
    before = model(x)
    adapters = inject(model, KRAdapter, ["0"])
    assert torch.equal(model(x), before)
    perturb(adapters)

    weight = model[0]._parameters["weight"] + adapters.adapters["0"].update(model[0]._parameters["weight"])

    torch.testing.assert_close(model(x), 2 * F.linear(x, weight, model[0].bias))


@pytest.mark.parametrize("make", [KRAdapter, make_lora], ids=["kra", "lora"])
def test_the_separate_weights_of_cocas_pooler_are_adapted(make, perturb):
    torch.manual_seed(0)
    model, x = AttentionalPooler(d_model=16, context_dim=24, n_head=2, n_queries=3), torch.randn(2, 7, 24)
    before = model(x)
    targets = ["attn.q_proj_weight", "attn.k_proj_weight", "attn.v_proj_weight", "attn.out_proj"]
    adapters = inject(model, make, targets)
    at_start = model(x)
    perturb(adapters)

    adapted = model(x)
    adapted.sum().backward()
    adapters.merge()
    merged = model(x)
    adapters.merge_and_unload()

    assert torch.equal(at_start, before)
    assert not torch.allclose(adapted, before, atol=1e-2)
    assert all(parameter.grad.count_nonzero() > 0 for parameter in adapters.parameters())
    torch.testing.assert_close(merged, adapted)
    assert type(model.attn) is nn.MultiheadAttention


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"inner_norm": True, "scale_heads": True}])
@pytest.mark.parametrize("targets", [["attn.qkv", "attn.out_proj"], ["attn.q", "attn.v"]])
def test_open_clips_own_attention_is_adapted(options, targets, perturb):
    torch.manual_seed(0)
    model, x = nn.ModuleDict({"attn": Attention(16, 2, **options)}), torch.randn(2, 5, 16)
    before = model["attn"](x)
    adapters = inject(model, KRAdapter, targets)
    at_start = model["attn"](x)
    perturb(adapters)

    adapted = model["attn"](x)
    adapted.sum().backward()
    adapters.merge()
    merged = model["attn"](x)
    adapters.merge_and_unload()

    assert torch.equal(at_start, before)
    assert not torch.allclose(adapted, before, atol=1e-3)
    assert all(parameter.grad is not None for parameter in adapters.parameters())
    torch.testing.assert_close(merged, adapted)
    assert type(model["attn"]) is Attention
