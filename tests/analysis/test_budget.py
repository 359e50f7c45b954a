"""Budgets are met as nearly as a method's sizes allow, and what cannot meet one is refused."""

from functools import partial

import pytest
import torch

from kravl.adapters.full import Full
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA
from kravl.analysis.approximation.budget import OverBudgetError, count, spend, unit

LORA = partial(LoRA, rank=1, alpha=1)


def test_the_unit_is_kradapters_own_number():
    assert unit((768, 1024)) == 49_920
    assert unit((1024, 4096)) == 163_840


def test_a_count_is_that_of_a_real_adapter_without_its_frozen_bases():
    real = RandLoRA(20, 30, rank=3, alpha=3)

    assert count(partial(RandLoRA, rank=3, alpha=3), (20, 30)) == sum(
        p.numel() for p in real.parameters() if p.requires_grad
    )


@pytest.mark.parametrize(("budget", "rank"), [(50, 1), (74, 1), (76, 2), (500, 10)])
def test_the_nearest_rank_is_taken(budget, rank):
    make, parameters = spend("lora", LORA, (20, 30), budget)

    assert parameters == 50 * rank
    assert make(20, 30).rank == rank


def test_kradapters_own_split_is_kept_at_its_own_budget():
    make, parameters = spend("kra", KRAdapter, (64, 64), unit((64, 64)))

    assert make(64, 64).split == "short"
    assert parameters == unit((64, 64))


def test_a_larger_budget_buys_kradapter_a_longer_factor():
    make, parameters = spend("kra", KRAdapter, (64, 64), 2 * unit((64, 64)))

    adapter = make(64, 64)
    assert parameters == pytest.approx(2 * unit((64, 64)), rel=0.05)
    assert adapter.delta_weight().shape == (64, 64)


def test_a_method_that_is_always_too_large_is_refused_with_its_size():
    with pytest.raises(OverBudgetError, match=r"full trains at least 600 parameters on a 20 x 30 .* budget is 100"):
        spend("full", Full, (20, 30), 100)
    with pytest.raises(OverBudgetError, match="lora trains at least 50"):
        spend("lora", LORA, (20, 30), 40)


def test_what_is_always_too_small_keeps_its_largest_size():
    make, parameters = spend("vera", partial(VeRA, rank=2), (20, 30), 5000)

    assert parameters == 20 + 30
    assert torch.count_nonzero(make(20, 30).delta_weight()) == 0
