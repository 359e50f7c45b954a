"""What injection does to a model: what trains, what is stored once, and who sees an adapted weight."""

import logging
from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.injection.attention import AdaptedAttention
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA
from kravl.runtime.errors import InputError

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
def test_an_adapted_model_is_not_adapted_again_before_its_adapters_are_merged_for_good(vit, targets):
    adapters = inject(vit, KRAdapter, ["blocks.0.attn.q"])

    with pytest.raises(RuntimeError, match="already adapted"):
        inject(vit, KRAdapter, targets)
    adapters.merge_and_unload()

    inject(vit, KRAdapter, targets)


@pytest.mark.parametrize("make", [partial(RandLoRA, rank=4, alpha=8), partial(VeRA, rank=4)], ids=["randlora", "vera"])
def test_frozen_bases_are_stored_once_for_all_sites_of_a_shape(vit, make):
    adapters = inject(vit, make, ["blocks.*.mlp.*"])
    vit.double()

    bases = [p for a in adapters.adapters.values() for p in a.parameters() if not p.requires_grad]
    assert len(bases) == 8
    assert len({parameter.data_ptr() for parameter in bases}) == len({tuple(p.shape) for p in bases})


def test_two_models_do_not_share_their_bases(vit, clip):
    first = inject(vit, partial(VeRA, rank=4), ["blocks.*.mlp.fc1"])
    second = inject(clip, partial(VeRA, rank=4), ["visual.*.attn.q"])

    ids = [{id(p) for a in adapters.adapters.values() for p in a.parameters()} for adapters in (first, second)]
    assert not ids[0] & ids[1]


def test_an_adapter_larger_than_its_weight_is_reported(vit, caplog):
    with caplog.at_level(logging.WARNING):
        inject(vit, partial(LoRA, rank=40, alpha=1), ["head"])

    assert "more trainable parameters than the weight they adapt: head" in caplog.text


def test_frozen_attention_is_replaced_as_well(clip):
    adapters = inject(clip, KRAdapter, ["visual.proj"])

    assert sum(isinstance(module, AdaptedAttention) for module in clip.modules()) == 4
    adapters.merge_and_unload()
    assert sum(type(module) is nn.MultiheadAttention for module in clip.modules()) == 4


def test_adapters_follow_the_mode_of_the_layer_they_hang_on(vit):
    adapters = inject(vit.eval(), partial(KRAdapter, dropout=0.5), ["head"])

    assert not adapters.adapters["head"].training
    assert vit.train().head.adapters[0].training


def test_adapters_are_made_on_the_device_of_their_weight():
    model = nn.Sequential(nn.Linear(8, 8, device="meta"))

    adapters = inject(model, KRAdapter, ["0"])

    assert all(parameter.is_meta for parameter in adapters.parameters())
