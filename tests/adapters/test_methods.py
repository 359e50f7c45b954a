"""RandLoRA, SinLoRA, KronA, VeRA, DoRA and Full against formulas written another way."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.krona import KronA
from kravl.adapters.randlora import RandLoRA, RandLoRAVisionLanguage
from kravl.adapters.sinlora import SinLoRA
from kravl.adapters.vera import VeRA


def moved(adapter):
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return adapter


@pytest.mark.parametrize("shape", [(11, 7), (7, 11), (8, 8)])
def test_randlora_is_a_sum_of_scaled_bases(shape):
    adapter = moved(RandLoRA(*shape, rank=3, alpha=6))

    total = torch.zeros(max(shape), min(shape))
    for i in range(math.ceil(min(shape) / 3)):
        basis = adapter.bases_b[:, 3 * i : 3 * i + 3]
        total += basis @ torch.diag(adapter.lam[i]) @ adapter.bases_a @ torch.diag(adapter.gamma[i])

    torch.testing.assert_close(adapter.delta_weight(), total if shape[0] > shape[1] else total.T)
    assert adapter.scale == 2.0


@pytest.mark.parametrize("shape", [(64, 192), (192, 64)])
def test_randlora_starts_as_its_authors_code_of_that_name(shape):
    # tuners/randlora/layer.py of peft 0.21.2, and src/rand_lora.py of the vision-language script
    peft, script = RandLoRA(*shape, rank=6, alpha=120), RandLoRAVisionLanguage(*shape, rank=6, alpha=1)

    assert {peft.lam.unique().item(), peft.gamma.unique().item()} == {0.0, 1 / 64}
    assert (script.lam.unique().item(), script.gamma.unique().item()) == (pytest.approx(1 / 11), 0.0)
    assert (peft.scale, script.scale) == (20.0, 1 / 6)
    assert torch.count_nonzero(script.delta_weight()) == 0


def test_randlora_reaches_full_rank_with_few_parameters():
    adapter = moved(RandLoRA(64, 64, rank=8, alpha=8))

    assert torch.linalg.matrix_rank(adapter.delta_weight().double()) == 64
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 8 * 8 + 8 * 64


@pytest.mark.parametrize("make", [partial(RandLoRA, rank=3, alpha=6), partial(VeRA, rank=3)], ids=["randlora", "vera"])
def test_frozen_bases_follow_from_their_seed_and_leave_the_global_one_alone(make):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    first, same, other = make(7, 5), make(7, 5), make(7, 5, seed=1)

    assert torch.equal(torch.rand(1), expected)
    bases = [[p for p in adapter.parameters() if not p.requires_grad] for adapter in (first, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(bases[0], bases[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(bases[0], bases[2], strict=True))


def test_sinlora_is_the_sine_of_a_low_rank_product():
    adapter = moved(SinLoRA(9, 4, rank=2, alpha=6, omega=20.0))

    expected = [[math.sin(20.0 * torch.dot(b, a).item()) / 2.0 for a in adapter.a.T] for b in adapter.b]

    torch.testing.assert_close(adapter.delta_weight(), torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert adapter.scale == 3.0


def test_krona_is_a_cut_kronecker_product():
    adapter = moved(KronA(7, 11, factor=3))

    delta = adapter.delta_weight()

    assert adapter.b.shape == (3, 4)
    for i, j in ((0, 0), (6, 10), (4, 5)):
        torch.testing.assert_close(delta[i, j], adapter.a[i // 3, j // 4] * adapter.b[i % 3, j % 4])
    assert torch.linalg.matrix_rank(delta.double()) == 7


def test_vera_scales_rows_and_inner_rank_of_a_frozen_product():
    adapter = moved(VeRA(6, 5, rank=3))

    expected = torch.diag(adapter.b) @ adapter.base_b @ torch.diag(adapter.d) @ adapter.base_a

    torch.testing.assert_close(adapter.delta_weight(), expected)
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 6 + 3


def test_dora_rows_have_the_trained_magnitude_and_loras_direction():
    weight, adapter = torch.randn(6, 5), DoRA(6, 5, rank=2, alpha=4)
    adapter.attach(weight)
    torch.testing.assert_close(adapter.magnitude.squeeze(), weight.norm(dim=1))
    moved(adapter)

    adapted = weight + adapter.update(weight)

    direction = weight + 2.0 * adapter.b @ adapter.a
    torch.testing.assert_close(adapted.norm(dim=1), adapter.magnitude.squeeze().abs())
    cosine = torch.cosine_similarity(adapted, direction) * adapter.magnitude.squeeze().sign()
    torch.testing.assert_close(cosine, torch.ones(6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dora_starts_at_exactly_zero_on_wide_rows(dtype):
    weight = torch.randn(300, 700, generator=torch.Generator().manual_seed(0)).to(dtype)
    adapter = DoRA(300, 700, rank=2, alpha=4)
    adapter.attach(weight)

    assert torch.count_nonzero(adapter.update(weight)) == 0


def test_dora_leaves_rows_of_zeros_finite():
    weight = torch.zeros(3, 4)
    adapter = DoRA(3, 4, rank=2, alpha=4)
    adapter.attach(weight)

    update = adapter.update(weight)
    update.sum().backward()

    assert torch.count_nonzero(update) == 0
    assert all(parameter.grad.isfinite().all() for parameter in adapter.parameters())


def test_full_is_any_matrix():
    adapter = Full(3, 4)
    target = torch.randn(3, 4)

    adapter.delta.data.copy_(target)

    assert torch.equal(adapter.update(torch.randn(3, 4)), target)
