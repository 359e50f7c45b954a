"""What every adapter must satisfy in other precisions than fp32: each file in configs/adapter."""

import pytest
import torch

from kravl.adapters.injection.inject import inject


def test_a_bf16_base_keeps_its_type_under_fp32_adapters(make_adapter, case, perturb, unadapted):
    model = case.model.bfloat16()
    before = case.run(unadapted(model))
    adapters = inject(model, make_adapter, case.targets)
    at_start = case.run(model)
    perturb(adapters)

    adapted = case.run(model)
    adapted.float().square().sum().backward()
    adapters.merge()

    assert torch.equal(at_start, before)
    assert adapted.dtype == torch.bfloat16
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in adapters.parameters())
    assert (case.run(model).float() - adapted.float()).norm() < 0.03 * adapted.float().norm()


def numbers(run, model, adapters):
    """Outputs and the gradients of all that trains, on the CPU."""
    y = run(model)
    gradients = torch.autograd.grad(y.square().sum(), adapters.parameters())
    return [value.detach().cpu() for value in (y, *gradients)]


def test_an_fp64_base_is_adapted_in_fp64_with_the_numbers_of_a_cpu(make_adapter, case, perturb, unadapted, device):
    model = case.model.double()
    before, pretrained = case.run(unadapted(model)), case.run(model)
    adapters = inject(model, make_adapter, case.targets)
    at_start = case.run(model)
    perturb(adapters)

    expected = numbers(case.run, model, adapters)
    model.to(device)
    actual = numbers(case.run, model, adapters)
    adapters.merge()

    assert torch.equal(at_start, before)
    assert all(parameter.dtype == torch.float64 for parameter in adapters.parameters())
    # Sums of up to 192 products in some ten layers, in another order: 192 * 10 * 2.2e-16 of values near 1. A step in
    # fp32 would be off by 1e-7.
    torch.testing.assert_close(before, pretrained, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(case.run(model).cpu(), actual[0], rtol=1e-12, atol=1e-12)
    # a gradient goes back through these layers once more, and through solutions of linear systems
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.bfloat16),
        pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.float16, marks=pytest.mark.gpu),
    ],
)
def test_autocast_starts_at_the_pretrained_model_and_gives_fp32_gradients(make_adapter, case, unadapted, device, dtype):
    plain, model = unadapted(case.model).to(device), case.model.to(device)
    with torch.autocast(device, dtype):
        pretrained = {mode: case.run(model.train(mode)) for mode in (True, False)}
        adapters = inject(model, make_adapter, case.targets)
        for mode, expected in pretrained.items():
            before, after = case.run(plain.train(mode)), case.run(model.train(mode))
            model.zero_grad()
            after.float().square().sum().backward()  # also where the caller forgets to leave autocast

            # a GPU may choose another kernel where a convolution is written as a product
            assert torch.equal(after, before) or (device == "cuda" and near(after, before))
            assert near(before, expected)
            assert all(p.grad.dtype == torch.float32 for p in adapters.parameters() if p.grad is not None)
            assert all(p.grad.isfinite().all() for p in adapters.parameters() if p.grad is not None)


def near(ours, theirs):
    """But for roundings to 8 bits."""
    return (ours.float() - theirs.float()).norm() < 0.03 * theirs.float().norm()
