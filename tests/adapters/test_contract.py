"""What every adapter must satisfy, run for each file in configs/adapter on CLIP and on a ViT."""

import copy
import json
import pickle

import pytest
import torch

from kravl.adapters.inject import inject
from kravl.adapters.store import load_adapters, save_adapters


@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (64, 192), (50, 70), (70, 50), (7, 5), (1, 9), (1, 1)])
def test_delta_has_the_shape_of_the_weight_and_starts_at_zero(make_adapter, shape):
    delta = make_adapter(*shape).delta_weight()

    assert delta.shape == shape
    assert torch.count_nonzero(delta) == 0


@pytest.mark.parametrize("train", [True, False])
def test_injection_starts_at_the_pretrained_model_bit_for_bit(make_adapter, case, train):
    before = case.run(case.model.train(train))

    inject(case.model, make_adapter, case.targets)

    assert torch.equal(case.run(case.model), before)
    with torch.no_grad():
        assert torch.equal(case.run(case.model), before)


@pytest.mark.parametrize("train", [True, False])
def test_only_adapters_get_gradients_and_all_of_them_do(make_adapter, case, perturb, train):
    adapters = inject(case.model.train(train), make_adapter, case.targets)
    perturb(adapters)

    case.run(case.model).square().sum().backward()

    trainable = {id(parameter) for parameter in adapters.parameters()}
    for name, parameter in case.model.named_parameters():
        assert parameter.requires_grad == (id(parameter) in trainable), name
        assert (parameter.grad is not None and parameter.grad.count_nonzero() > 0) == parameter.requires_grad, name
    assert {id(p) for p in case.model.parameters() if p.requires_grad} == trainable


def test_the_first_step_can_leave_the_starting_point(make_adapter, case):
    adapters = inject(case.model, make_adapter, case.targets)

    case.run(case.model).square().sum().backward()

    for site, adapter in adapters.adapters.items():
        assert any(p.grad.count_nonzero() > 0 for p in adapter.parameters() if p.requires_grad), site


@pytest.mark.parametrize("train", [True, False])
def test_merge_keeps_the_function_and_unmerge_restores_every_bit(make_adapter, case, perturb, train):
    adapters = inject(case.model.train(train), make_adapter, case.targets)
    before = case.run(case.model)
    perturb(adapters)
    base = {name: parameter.clone() for name, parameter in case.model.named_parameters()}

    adapted = case.run(case.model)
    adapters.merge()
    merged = case.run(case.model)
    adapters.unmerge()

    assert not torch.allclose(adapted, before, atol=1e-3)
    torch.testing.assert_close(merged, adapted)
    assert torch.equal(case.run(case.model), adapted)
    assert all(torch.equal(parameter, base[name]) for name, parameter in case.model.named_parameters())


def test_disabled_adapters_leave_the_pretrained_model(make_adapter, case, perturb):
    adapters = inject(case.model, make_adapter, case.targets)
    before = case.run(case.model)
    perturb(adapters)
    adapted = case.run(case.model)

    with adapters.disabled():
        disabled = case.run(case.model)

    assert torch.equal(disabled, before)
    assert torch.equal(case.run(case.model), adapted)


def test_a_saved_file_makes_a_fresh_model_the_same(make_adapter, case, perturb, tmp_path):
    fresh = copy.deepcopy(case.model)
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)

    save_adapters(adapters, tmp_path / "adapters.safetensors")
    loaded = inject(fresh, make_adapter, case.targets)
    load_adapters(loaded, tmp_path / "adapters.safetensors")

    assert torch.equal(case.run(fresh), case.run(case.model))
    assert list(loaded.state_dict()) == list(adapters.state_dict())


def test_the_state_holds_all_that_trains_and_nothing_else(make_adapter, case):
    adapters = inject(case.model, make_adapter, case.targets)

    state = adapters.state_dict()

    trainable = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in trainable) == adapters.num_trainable()
    assert {t.data_ptr() for t in state.values()} == {p.data_ptr() for p in trainable}


def test_bake_leaves_the_adapted_function_in_the_original_classes_and_keys(make_adapter, case, perturb):
    keys = list(case.model.state_dict())
    classes = [type(module) for module in case.model.modules()]
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    adapted = case.run(case.model)

    adapters.bake()

    torch.testing.assert_close(case.run(case.model), adapted)
    assert list(case.model.state_dict()) == keys
    assert [type(module) for module in case.model.modules()] == classes


def test_a_bf16_base_keeps_its_type_under_fp32_adapters(make_adapter, case, perturb):
    model = case.model.bfloat16()
    before = case.run(model)
    adapters = inject(model, make_adapter, case.targets)
    at_start = case.run(model)
    perturb(adapters)

    adapted = case.run(model)
    adapted.float().square().sum().backward()
    adapters.merge()

    assert torch.equal(at_start, before)
    assert adapted.dtype == torch.bfloat16
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in adapters.parameters())
    torch.testing.assert_close(case.run(model), adapted, rtol=0.1, atol=0.05)


def test_an_fp64_base_is_adapted_in_fp64(make_adapter, case, perturb):
    model = case.model.double()
    before = case.run(model)
    adapters = inject(model, make_adapter, case.targets)
    at_start = case.run(model)
    perturb(adapters)

    adapted = case.run(model)
    adapters.merge()

    assert torch.equal(at_start, before)
    assert all(parameter.dtype == torch.float64 for parameter in adapters.parameters())
    torch.testing.assert_close(case.run(model), adapted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("train", [True, False])
def test_autocast_starts_at_the_pretrained_model_and_gives_fp32_gradients(make_adapter, case, train):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = case.run(case.model.train(train))
        adapters = inject(case.model, make_adapter, case.targets)
        after = case.run(case.model)
        after.float().square().sum().backward()  # also where the caller forgets to leave autocast

    assert torch.equal(after, before)
    assert all(p.grad.dtype == torch.float32 for p in adapters.parameters() if p.grad is not None)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_compute_the_same_and_are_independent(make_adapter, case, perturb, duplicate):
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    adapted = case.run(case.model)

    model, copied = duplicate((case.model, adapters))
    same = case.run(model)
    perturb(copied)

    assert torch.equal(same, adapted)
    assert not torch.equal(case.run(model), adapted)
    assert torch.equal(case.run(case.model), adapted)
    copied.bake()
    assert list(model.state_dict()) == [key for key in case.model.state_dict() if ".adapters." not in f".{key}"]


def test_a_block_compiles_into_one_graph(make_adapter, case, perturb):
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    is_clip = "visual.proj" in adapters.adapters
    block = case.model.visual.transformer.resblocks[0] if is_clip else case.model.blocks[0]
    tokens = torch.rand(2, 5, 32 if is_clip else 48)
    torch.compiler.reset()

    compiled = torch.compile(block, backend="eager", fullgraph=True)(tokens)

    torch.testing.assert_close(compiled, block(tokens))


def test_gradient_checkpointing_changes_no_gradient(make_adapter, case, perturb):
    adapters = inject(case.model.train(), make_adapter, case.targets)
    perturb(adapters)
    case.run(case.model).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in adapters.parameters()]
    case.model.zero_grad()

    case.model.set_grad_checkpointing(True)
    case.run(case.model).square().sum().backward()

    for parameter, gradient in zip(adapters.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_dropout_acts_in_training_only(make_adapter, case, perturb):
    def with_dropout(out_features, in_features):
        return make_adapter(out_features, in_features, dropout=0.5)

    adapters = inject(case.model.eval(), with_dropout, case.targets)
    perturb(adapters)

    evaluated = case.run(case.model)
    again = case.run(case.model)
    case.model.train()

    assert torch.equal(again, evaluated)
    assert not torch.allclose(case.run(case.model), evaluated, atol=1e-3)
    assert not torch.allclose(case.run(case.model), case.run(case.model), atol=1e-3)


def test_the_description_names_method_sites_and_hyperparameters(make_adapter, config, case):
    adapters = inject(case.model, make_adapter, case.targets)

    description = json.loads(json.dumps(adapters.description()))

    written = {key: value for key, value in config.items() if not key.startswith("_")}
    assert description["method"] == config["_target_"]
    assert description["hyperparameters"] == written
    assert description["sites"] == {name: list(delta.shape) for name, delta in adapters.deltas()}
    assert description["num_trainable"] == adapters.num_trainable()


def test_one_seed_makes_the_same_adapters(make_adapter, vit):
    other = copy.deepcopy(vit)

    torch.manual_seed(1)
    first = inject(vit, make_adapter, ["blocks.*.mlp.*"])
    torch.manual_seed(1)
    second = inject(other, make_adapter, ["blocks.*.mlp.*"])

    for a, b in zip(vit.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.base_sha256() == second.base_sha256()
