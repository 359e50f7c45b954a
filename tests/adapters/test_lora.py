"""LoRA against its formula."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kravl.adapters.injection.inject import inject
from kravl.adapters.lora import LoRA


@pytest.mark.parametrize(("rank_stabilised", "scale"), [(False, 3 / 4), (True, 3 / 2)])
def test_the_two_thin_products_equal_the_dense_update(rank_stabilised, scale):
    adapter = LoRA(6, 5, rank=4, alpha=3, rank_stabilised=rank_stabilised)
    nn.init.normal_(adapter.b)
    x, y = torch.randn(7, 5), torch.zeros(7, 6)

    adapter.apply_factors(x, y, None)

    torch.testing.assert_close(y, scale * x @ (adapter.b @ adapter.a).T)
    torch.testing.assert_close(y, x @ adapter.update(torch.zeros(6, 5)).T)


def test_dropout_acts_on_each_entry_of_the_input_as_in_clip_lora():
    layer, x = nn.Sequential(nn.Linear(50, 50, bias=False)), torch.ones(200, 50)
    adapters = inject(layer, partial(LoRA, rank=50, alpha=50, dropout=0.25), ["0"])
    adapter = adapters.adapters["0"]
    with torch.no_grad():
        adapter.a.copy_(torch.eye(50))
        adapter.b.copy_(torch.eye(50))
        layer[0]._parameters["weight"].zero_()

    y = layer(x)

    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (y == 0).sum(0).unique().numel() > 1  # not whole columns


def test_its_dropout_draws_what_torchs_dropout_draws():
    adapter, x = LoRA(3, 50, rank=2, alpha=2, dropout=0.25), torch.ones(20, 50)

    torch.manual_seed(0)
    mask = adapter.draw_mask(x)
    torch.manual_seed(0)

    assert torch.equal(mask / 0.75, F.dropout(x, 0.25))
