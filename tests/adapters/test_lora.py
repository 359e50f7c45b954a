"""LoRA against its formula."""

from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.inject import inject
from kravl.adapters.lora import LoRA


@pytest.mark.parametrize(("rank_stabilised", "scale"), [(False, 3 / 4), (True, 3 / 2)])
def test_the_two_thin_products_equal_the_dense_update(rank_stabilised, scale):
    adapter = LoRA(6, 5, rank=4, alpha=3, rank_stabilised=rank_stabilised)
    nn.init.normal_(adapter.b)
    x = torch.randn(2, 7, 5)

    hidden, up = adapter.branch(x)

    assert hidden.shape == (2, 7, 4)
    torch.testing.assert_close(hidden @ up.T, scale * x @ (adapter.b @ adapter.a).T)
    torch.testing.assert_close(hidden @ up.T, x @ adapter.update(torch.zeros(6, 5)).T)


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


def test_it_holds_no_dense_product_in_the_forward_pass(monkeypatch):
    layer = nn.Sequential(nn.Linear(8, 8))
    inject(layer, partial(LoRA, rank=2, alpha=2), ["0"])
    monkeypatch.setattr(LoRA, "delta_weight", lambda self: pytest.fail("the dense update was built"))

    layer(torch.randn(3, 8)).sum().backward()
