"""What every adapter must satisfy, run for each file in configs/adapter on CLIP, on a ViT and on a ConvNeXt."""

from pathlib import Path

import pytest
import torch

from kravl.adapters.injection.inject import inject

KRA = Path(__file__).parents[2] / "configs/adapter/kra.yaml"
SHAPES = [(64, 64), (192, 64), (64, 192), (50, 70), (70, 50), (7, 5), (1, 9), (1, 1)]
MODES = (True, False)  # training, evaluation


def test_delta_has_the_shape_of_the_weight_and_starts_at_zero(make_adapter):
    for shape in SHAPES:
        delta = make_adapter(*shape).delta_weight()

        assert delta.shape == shape
        assert torch.count_nonzero(delta) == 0


def test_injection_starts_at_the_pretrained_model_bit_for_bit(make_adapter, case, unadapted):
    pretrained = {mode: case.run(case.model.train(mode)) for mode in MODES}
    plain = unadapted(case.model)
    before = {mode: case.run(plain.train(mode)) for mode in MODES}

    inject(case.model, make_adapter, case.targets)

    for mode in MODES:
        assert torch.equal(case.run(case.model.train(mode)), before[mode])
        with torch.no_grad():
            assert torch.equal(case.run(case.model), before[mode])
        torch.testing.assert_close(before[mode], pretrained[mode])


def test_only_adapters_get_gradients_and_all_of_them_do(make_adapter, case, perturb):
    adapters = inject(case.model, make_adapter, case.targets)
    at_start = case.run(case.model).square().sum()
    trainable = {id(parameter) for parameter in adapters.parameters()}
    assert {id(p) for p in case.model.parameters() if p.requires_grad} == trainable

    at_start.backward()
    for site, adapter in adapters.adapters.items():  # the first step can leave the starting point
        assert any(p.grad.count_nonzero() > 0 for p in adapter.parameters() if p.requires_grad), site

    perturb(adapters)
    for mode in MODES:
        case.model.zero_grad()
        case.run(case.model.train(mode)).square().sum().backward()
        for name, parameter in case.model.named_parameters():
            assert parameter.requires_grad == (id(parameter) in trainable), name
            has_gradient = parameter.grad is not None and bool(parameter.grad.count_nonzero() > 0)
            assert has_gradient == parameter.requires_grad, name


def test_merge_keeps_the_function_and_unmerge_restores_every_bit(make_adapter, case, perturb):
    adapters = inject(case.model, make_adapter, case.targets)
    before = case.run(case.model)
    perturb(adapters)
    base = {name: parameter.clone() for name, parameter in case.model.named_parameters()}

    for mode in MODES:
        adapted = case.run(case.model.train(mode))
        adapters.merge()
        merged = case.run(case.model)
        adapters.unmerge()

        assert not torch.allclose(adapted, before, atol=1e-3)
        torch.testing.assert_close(merged, adapted)
        assert torch.equal(case.run(case.model), adapted)
        assert all(torch.equal(parameter, base[name]) for name, parameter in case.model.named_parameters())


@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_disabled_adapters_leave_the_pretrained_model(make_adapter, case, perturb):
    adapters = inject(case.model, make_adapter, case.targets)
    before = case.run(case.model)
    perturb(adapters)
    adapted = case.run(case.model)

    with adapters.disable_adapters():
        disabled = case.run(case.model)

    assert torch.equal(disabled, before)
    assert torch.equal(case.run(case.model), adapted)


@pytest.mark.long
@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_a_block_compiles_into_one_graph(make_adapter, case, perturb, device):
    assert_one_graph(make_adapter, case, perturb, device)


# how layers enter a graph is no matter of the adapter
@pytest.mark.parametrize("case", ["vit", "convnext"], indirect=True)
@pytest.mark.parametrize("config", [KRA], indirect=True)
def test_a_block_of_any_layers_compiles_into_one_graph(make_adapter, case, perturb, device):
    assert_one_graph(make_adapter, case, perturb, device)


def assert_one_graph(make_adapter, case, perturb, device):
    """On a GPU with the compiler's own kernels."""
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    block, tokens = case.model.get_submodule(case.block).to(device), torch.rand(case.shape, device=device)
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    torch.compiler.reset()
    compiled = torch.compile(block, backend="eager" if device == "cpu" else "inductor", fullgraph=True)

    ours, theirs = compiled(tokens), block(tokens)
    gradients = (torch.autograd.grad(y.square().sum(), parameters) for y in (ours, theirs))

    # fused kernels round between fewer operations, and a GPU's convolutions and products may take 10 bits of a number
    within = {"rtol": 1e-4, "atol": 1e-4} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(ours, theirs, **within)
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() <= within["rtol"] * b.norm()


@pytest.mark.parametrize("case", ["clip"], indirect=True)
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


@pytest.mark.parametrize("case", ["clip"], indirect=True)
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
