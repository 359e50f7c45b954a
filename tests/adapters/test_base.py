"""Arguments that every adapter checks, and the dropout that they share."""

from functools import partial

import pytest
import torch

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.kra import KRAdapter
from kravl.adapters.krona import KronA
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA
from kravl.runtime.errors import InputError


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 25])
def test_dropout_must_be_a_fraction(dropout):
    with pytest.raises(InputError, match=r"dropout must be a fraction in \[0, 1\)"):
        Full(3, 4, dropout=dropout)


@pytest.mark.parametrize("make", [partial(LoRA, alpha=1), partial(RandLoRA, alpha=1), VeRA, partial(DoRA, alpha=1)])
@pytest.mark.parametrize("rank", [0, -1, 2.5])
def test_rank_must_be_a_positive_whole_number(make, rank):
    with pytest.raises(InputError, match="rank must be a whole number of at least 1"):
        make(3, 4, rank=rank)


def test_krona_needs_a_positive_factor():
    with pytest.raises(InputError, match=r"factor must be a whole number of at least 1, or a multiple .* not 0"):
        KronA(3, 4, factor=0)


@pytest.mark.parametrize("multiple", ["0.5x", "1x", "2x"])
def test_krona_takes_a_multiple_of_kradapters_number_of_parameters(multiple):
    budget = float(multiple[:-1]) * sum(p.numel() for p in KRAdapter(96, 64).parameters())

    adapter = KronA(96, 64, factor=multiple)

    assert sum(p.numel() for p in adapter.parameters()) == pytest.approx(budget, rel=0.05)
    assert adapter.hyperparameters()["factor"] == multiple


def test_column_dropout_keeps_the_update_in_expectation():
    adapter = Full(2, 1000, dropout=0.25)
    torch.manual_seed(0)

    mask = adapter.draw_mask()

    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert mask.mean().item() == pytest.approx(1.0, abs=0.05)
    assert adapter.eval().draw_mask() is None
