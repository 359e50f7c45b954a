"""What injection does to a model: what trains, what is stored once, and who sees an adapted weight."""

import logging
from functools import partial

import pytest
import torch
from open_clip.transformer import Attention, AttentionalPooler
from torch import nn
from torch.nn import functional as F

from kravl.adapters.attention import AdaptedAttention
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA
from kravl.errors import InputError

make_lora = partial(LoRA, rank=2, alpha=2)


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def classes(model):
    return [type(module) for module in model.modules()]


def test_base_parameters_keep_name_place_order_and_identity(clip):
    before = dict(clip.named_parameters())

    inject(clip, KRAdapter, ["visual.*.attn.qkv", "visual.*.mlp.*", "visual.proj", "text_projection"])

    after = {name: p for name, p in clip.named_parameters() if "adapters" not in name.split(".")}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_a_base_that_was_trainable_is_frozen(vit):
    vit.requires_grad_(True)

    inject(vit, KRAdapter, ["head"])

    assert trainable(vit) == {"head.adapters.0.u", "head.adapters.0.v"}


def test_bitfit_is_a_pattern_without_sites(vit):
    adapters = inject(vit, KRAdapter, [], unfreeze=["blocks.*.bias"])

    assert trainable(vit) == {n for n, _ in vit.named_parameters() if n.startswith("blocks.") and n.endswith(".bias")}
    assert set(adapters.unfrozen) == trainable(vit)
    vit(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in adapters.parameters())


def test_biases_train_beside_adapters_of_their_layer(vit):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"], unfreeze=["blocks.*.mlp.*.bias"])

    vit(torch.rand(2, 3, 32, 32)).sum().backward()

    assert "blocks.0.mlp.fc1.bias" in adapters.unfrozen
    assert all(parameter.grad is not None for parameter in adapters.unfrozen.values())


def test_unfreezing_everything_leaves_adapted_weights_frozen(vit):
    names = {name for name, _ in vit.named_parameters()}

    adapters = inject(vit, KRAdapter, ["blocks.0.attn.q", "head"], unfreeze=["*"])

    assert set(adapters.unfrozen) == names - {"blocks.0.attn.qkv.weight", "head.weight"}
    assert trainable(vit) - set(adapters.unfrozen) == {n for n, _ in vit.named_parameters() if ".adapters." in n}


@pytest.mark.parametrize(("targets", "unfreeze"), [(["head"], ["*.biass"]), (["head"], ["*", "head.weight"])])
def test_an_unfreeze_pattern_without_effect_is_an_error_and_changes_nothing(vit, targets, unfreeze):
    before = classes(vit), trainable(vit), list(vit.state_dict())

    with pytest.raises(InputError, match=r"matches no unadapted parameter; the nearest are .*'head.bias'"):
        inject(vit, KRAdapter, targets, unfreeze)

    assert (classes(vit), trainable(vit), list(vit.state_dict())) == before


def test_an_adapter_that_cannot_be_made_changes_nothing(clip):
    before = classes(clip), trainable(clip), list(clip.state_dict())

    with pytest.raises(InputError, match="rank must be a whole number of at least 1, not 0"):
        inject(clip, partial(LoRA, rank=0, alpha=1), ["visual.*.attn.qkv"])

    assert (classes(clip), trainable(clip), list(clip.state_dict())) == before


@pytest.mark.parametrize("targets", [["head"], []])
def test_an_adapted_model_is_not_adapted_again_before_it_is_baked(vit, targets):
    adapters = inject(vit, KRAdapter, ["blocks.0.attn.q"])

    with pytest.raises(RuntimeError, match="adapted already"):
        inject(vit, KRAdapter, targets)
    adapters.bake()

    inject(vit, KRAdapter, targets)


@pytest.mark.parametrize("make", [partial(RandLoRA, rank=4, alpha=8), partial(VeRA, rank=4)], ids=["randlora", "vera"])
def test_frozen_bases_are_stored_once_for_all_sites_of_a_shape(vit, make):
    adapters = inject(vit, make, ["blocks.*.mlp.*"])

    bases = [p for a in adapters.adapters.values() for p in a.parameters() if not p.requires_grad]
    assert len(bases) == 8
    assert len({id(parameter) for parameter in bases}) == len({tuple(parameter.shape) for parameter in bases})
    vit.double()
    assert len({p.data_ptr() for a in adapters.adapters.values() for p in a.parameters() if not p.requires_grad}) < 8


def test_two_models_do_not_share_their_bases(vit, clip):
    first = inject(vit, partial(VeRA, rank=4), ["blocks.*.mlp.fc1"])
    second = inject(clip, partial(VeRA, rank=4), ["visual.*.attn.q"])

    ids = [{id(p) for a in adapters.adapters.values() for p in a.parameters()} for adapters in (first, second)]
    assert not ids[0] & ids[1]


def test_an_adapter_larger_than_its_weight_is_reported(vit, caplog):
    with caplog.at_level(logging.WARNING):
        inject(vit, partial(LoRA, rank=40, alpha=1), ["head", "blocks.*.attn.q"])

    assert "more trainable parameters than the weight they adapt" in caplog.text
    assert "head" in caplog.text


def test_frozen_attention_is_replaced_as_well(clip):
    adapters = inject(clip, KRAdapter, ["visual.proj"])

    assert sum(isinstance(module, AdaptedAttention) for module in clip.modules()) == 4
    adapters.bake()
    assert sum(type(module) is nn.MultiheadAttention for module in clip.modules()) == 4


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
    adapters.bake()

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
    adapters.bake()

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
    adapters.bake()

    assert torch.equal(at_start, before)
    assert not torch.allclose(adapted, before, atol=1e-3)
    assert all(parameter.grad is not None for parameter in adapters.parameters())
    torch.testing.assert_close(merged, adapted)
    assert type(model["attn"]) is Attention


def test_adapters_follow_the_mode_of_the_layer_they_hang_on(vit):
    adapters = inject(vit.eval(), partial(KRAdapter, dropout=0.5), ["head"])

    assert not adapters.adapters["head"].training
    assert vit.train().head.adapters[0].training
