"""What every adapter must satisfy in other precisions than fp32: each file in configs/adapter."""

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


def test_an_fp64_base_is_adapted_in_fp64(make_adapter, case, perturb, unadapted):
    model = case.model.double()
    before, pretrained = case.run(unadapted(model)), case.run(model)
    adapters = inject(model, make_adapter, case.targets)
    at_start = case.run(model)
    perturb(adapters)

    adapted = case.run(model)
    adapters.merge()

    assert torch.equal(at_start, before)
    assert all(parameter.dtype == torch.float64 for parameter in adapters.parameters())
    # Sums of up to 192 products in some ten layers, in another order: 192 * 10 * 2.2e-16 of values near 1. A step in
    # fp32 would be off by 1e-7.
    torch.testing.assert_close(before, pretrained, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(case.run(model), adapted, rtol=1e-12, atol=1e-12)


def test_autocast_starts_at_the_pretrained_model_and_gives_fp32_gradients(make_adapter, case, unadapted):
    plain = unadapted(case.model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pretrained = {mode: case.run(case.model.train(mode)) for mode in (True, False)}
        adapters = inject(case.model, make_adapter, case.targets)
        for mode, expected in pretrained.items():
            before, after = case.run(plain.train(mode)), case.run(case.model.train(mode))
            case.model.zero_grad()
            after.float().square().sum().backward()  # also where the caller forgets to leave autocast

            assert torch.equal(after, before)
            assert (before.float() - expected.float()).norm() < 0.03 * expected.float().norm()  # roundings to 8 bits
            assert all(p.grad.dtype == torch.float32 for p in adapters.parameters() if p.grad is not None)
