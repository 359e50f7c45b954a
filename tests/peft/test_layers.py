"""Each kind of layer computes W + ΔW, starts at W, trains, merges, saves and loads."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft_models import base_of
from torch import nn

import kravl.peft
from kravl.peft.layers.layer import AdapterLayer


def perturb(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)


def layer_of(model: nn.Module) -> AdapterLayer:
    (layer,) = (module for module in model.modules() if isinstance(module, AdapterLayer))
    return layer


def with_updates_added(base: nn.Module, targets: list[str], layer: AdapterLayer) -> nn.Module:
    """A plain copy of the base with scale * `Adapter.delta_weight` in its weights, laid out here and not by a layer."""
    plain = copy.deepcopy(base)
    module = next(m for name, m in plain.named_modules() if name.endswith(targets[0]))
    for name, adapter in layer.adapters("default").items():
        weight = module.get_parameter(name)
        delta = (adapter.scale * adapter.delta_weight()).detach()
        transposed = type(module).__name__ in ("Conv1D", "Embedding")
        weight.data += delta.T if transposed else delta.reshape(weight.shape)
    return plain


@pytest.fixture
def made(kind, method):
    base, x, targets = base_of(kind)
    plain = copy.deepcopy(base)
    return get_peft_model(base, method(target_modules=targets)), plain, x, targets


@pytest.mark.filterwarnings("ignore:adapters with more parameters")
def test_it_starts_at_the_base_and_then_computes_the_sum_of_weights(made):
    model, plain, x, targets = made
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-6)  # attention takes another kernel in training

    perturb(model)

    torch.testing.assert_close(model(x), with_updates_added(plain, targets, layer_of(model))(x))


@pytest.mark.filterwarnings("ignore:adapters with more parameters")
def test_gradients_are_those_of_the_dense_update(made):
    model, plain, x, targets = made
    perturb(model)
    layer = layer_of(model)
    y = model(x)
    towards = torch.randn_like(y)
    (y * towards).sum().backward()

    for name, adapter in layer.adapters("default").items():
        dense = with_updates_added(plain, targets, layer)
        module = next(m for n, m in dense.named_modules() if n.endswith(targets[0]))
        for parameter in dense.parameters():
            parameter.requires_grad_(True)
        (dense(x) * towards).sum().backward()
        gradient = module.get_parameter(name).grad
        stored = gradient.T if type(module).__name__ in ("Conv1D", "Embedding") else gradient
        stored = stored.reshape(adapter.out_features, adapter.in_features)
        names = [n for n, p in adapter.named_parameters() if p.requires_grad]
        expected = torch.autograd.grad(
            adapter.scale * adapter.delta_weight(), [adapter.get_parameter(n) for n in names], stored
        )
        for n, grad in zip(names, expected, strict=True):
            torch.testing.assert_close(adapter.get_parameter(n).grad, grad, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:adapters with more parameters")
def test_merging_keeps_the_function_and_unmerging_every_bit(made):
    model, plain, x, _ = made
    model.eval()
    perturb(model)
    with torch.no_grad():
        adapted = model(x)
        model.merge_adapter(safe_merge=True)
        torch.testing.assert_close(model(x), adapted, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
        torch.testing.assert_close(model(x), adapted, rtol=1e-6, atol=1e-6)
    unloaded = copy.deepcopy(model).unload()
    assert all(torch.equal(a, b) for a, b in zip(unloaded.parameters(), plain.parameters(), strict=True))

    merged = model.merge_and_unload()

    assert list(merged.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    torch.testing.assert_close(merged(x), adapted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:adapters with more parameters")
def test_a_saved_adapter_loads_to_the_same_bits(made, tmp_path):
    model, plain, x, _ = made
    model.eval()
    perturb(model)
    model.save_pretrained(tmp_path)

    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()

    assert torch.equal(loaded(x), model.requires_grad_(False)(x))
    expected = model.peft_config["default"].to_dict() | {"inference_mode": True, "auto_mapping": None}
    assert loaded.peft_config["default"].to_dict() | {"auto_mapping": None} == expected


@pytest.mark.filterwarnings("ignore:adapters with more parameters")
@pytest.mark.parametrize("kind", ["wide", "Conv1D", "conv2d", "embedding", "attention", "out_proj"], indirect=True)
def test_several_active_adapters_add_up_and_their_weighted_sum_is_exact(made, method):
    model, plain, x, targets = made
    perturb(model)
    model.add_adapter("second", method(target_modules=targets, init_weights=False))
    model.eval()
    outputs = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        outputs[name] = model(x)
    model.base_model.set_adapter(["default", "second"])
    both = model(x)
    assert not torch.allclose(both, outputs["default"])
    if layer_of(model).__class__.__name__ != "AdaptedAttention":  # whose output is not linear in its weights
        torch.testing.assert_close(both, outputs["default"] + outputs["second"] - plain(x), rtol=1e-4, atol=1e-5)

    model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".sum." in n)
    model.set_adapter("sum")

    torch.testing.assert_close(model(x), both, rtol=1e-4, atol=1e-5)
    model.delete_adapter("second")
    torch.testing.assert_close(model(x), both, rtol=1e-4, atol=1e-5)


def test_a_weighted_sum_of_sums_with_other_scales_saves_and_loads(tmp_path):
    base, x, _ = base_of("wide")
    base.append(nn.Linear(20, 64))
    plain = copy.deepcopy(base)
    model = get_peft_model(base, kravl.peft.KRAdapterConfig(target_modules=["0", "1"], scale=0.5, init_weights=False))
    model.add_adapter("b", kravl.peft.KRAdapterConfig(target_modules="1", scale=3.0, init_weights=False))
    model.add_weighted_adapter(["default", "b"], [2.0, -1.0], "c")
    model.add_weighted_adapter(["c", "b"], [1.0, 0.25], "d")  # 2 default - 0.75 b
    first, second = (module for module in model.modules() if isinstance(module, AdapterLayer))
    expected = 2 * first.get_delta_weight("default"), 2 * second.get_delta_weight("default")
    torch.testing.assert_close(first.get_delta_weight("d"), expected[0])
    torch.testing.assert_close(second.get_delta_weight("d"), expected[1] - 0.75 * second.get_delta_weight("b"))

    model.set_adapter("d")
    model.save_pretrained(tmp_path, selected_adapters=["d"])
    loaded = PeftModel.from_pretrained(plain, tmp_path / "d")

    assert torch.equal(loaded.eval()(x), model.eval()(x))


def test_dropout_drops_in_training_alone_and_keeps_the_mean():
    base, x, targets = base_of("wide")
    model = get_peft_model(base, kravl.peft.KRAdapterConfig(target_modules=targets, dropout=0.5))
    perturb(model)
    model.train()
    with torch.no_grad():
        mean = torch.stack([model(x) for _ in range(2000)]).mean(0)
        model.eval()
        assert torch.equal(model(x), model(x))
        # an output is a sum of 30 products, each dropped at a half: 2,000 draws leave a standard error below 0.1
        torch.testing.assert_close(mean, model(x), rtol=0, atol=0.5)


def test_kradapter_looks_embeddings_up_without_their_matrix():
    base = nn.Sequential(nn.Embedding(10**6, 4096, _weight=torch.zeros(1).expand(10**6, 4096)))
    model = get_peft_model(base, kravl.peft.KRAdapterConfig(target_modules=["0"], init_weights=False))

    y = model(torch.tensor([[0, 999_999]]))  # ΔW alone would be 16 GB

    adapter = layer_of(model).adapters("default")["weight"]
    r = adapter.u.shape[1]
    torch.testing.assert_close(y[0, 1], 2.0 * adapter.v[:, 999_999 // r] * adapter.u[:, 999_999 % r])
