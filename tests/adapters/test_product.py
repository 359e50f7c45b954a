"""The adapted product's operations, counted, and its gradients on every order of products that it may choose."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.linear import adapted_linear, product
from kravl.adapters.injection.parameter import AdaptedRows
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.low_rank import ORDERS, LowRankAdapter, operations
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA

LOW_RANK = {
    "lora": partial(LoRA, rank=3, alpha=2),
    "randlora": partial(RandLoRA, rank=3, alpha=6),
    "vera": partial(VeRA, rank=3),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def moved(make, out, columns, **kwargs):
    adapter = make(out, columns, **kwargs)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return adapter


def count(run) -> int:
    in_place = {torch.ops.aten.addmm_: lambda y, a, b, **_: 2 * a[0] * a[1] * b[1]}  # which the counter leaves out
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        run()
    return counter.get_total_flops() // 2


def assert_equal_gradients(adapter, tokens, mask=None):
    """Of output, input and factors in float64, against autograd through the dense update."""
    out, columns = adapter.out_features, adapter.in_features
    adapter.double()
    weight, x = torch.randn(out, columns).double(), torch.randn(tokens, columns).double().requires_grad_()
    pull, inputs = torch.randn(tokens, out).double(), [x, *(p for p in adapter.parameters() if p.requires_grad)]

    y = product(x, weight, None, [AdaptedRows(adapter, slice(0, out), mask)], torch.float64)
    gradients = torch.autograd.grad(y, inputs, pull)

    plain = x @ (weight + adapter(weight, mask)).T
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(plain, inputs, pull)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("out", "columns"), [(30, 20), (20, 30), (25, 25)])
def test_kradapter_takes_three_matrix_products_and_one_look_at_the_third(out, columns):
    layer = nn.Sequential(nn.Linear(columns, out))
    adapter = inject(layer, KRAdapter, ["0"]).adapters["0"]
    x = torch.randn(64, columns, requires_grad=True)

    forward = count(lambda: layer(x))
    whole = count(lambda: layer(x).sum().backward())

    r, long = adapter.u.shape[1], max(out, columns)
    assert forward == 64 * out * columns
    assert whole == 3 * forward + 2 * min(out, columns) * (long - long % r)


def test_q_k_and_v_apart_are_one_product():
    adapters = [KRAdapter(8, 8) for _ in range(3)]
    blocks = [AdaptedRows(adapter, slice(8 * i, 8 * i + 8)) for i, adapter in enumerate(adapters)]
    x, weight = torch.randn(5, 8), torch.randn(24, 8)

    with FlopCounterMode(display=False) as counter:
        adapted_linear(x, weight, torch.zeros(24), blocks)

    assert counter.get_flop_counts()["Global"] == {torch.ops.aten.addmm: 2 * 5 * 24 * 8}


@pytest.mark.parametrize("make", [Full, KRAdapter], ids=["full", "kra"])
def test_a_frozen_prefix_costs_no_gradient(make):
    model = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    inject(model, make, ["2"])
    x = torch.randn(50, 6)
    assert not model[:2](x).requires_grad

    loss = model(x).sum()

    contraction = 2 * 6 * 6 if make is KRAdapter else 0
    assert count(loss.backward) == 50 * 6 * 6 + contraction


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize(("out", "columns"), [(10, 7), (7, 10), (9, 9)])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_products_has_the_gradients_of_the_dense_update(name, out, columns, order, monkeypatch):
    monkeypatch.setattr(LowRankAdapter, "order", lambda self, tokens, dtype, mask: order)
    adapter = moved(LOW_RANK[name], out, columns)

    for tokens in (2, 20):
        assert_equal_gradients(adapter, tokens)
        assert_equal_gradients(adapter, tokens, torch.bernoulli(torch.full((columns,), 0.5)).double() * 2)


@pytest.mark.parametrize("name", LOW_RANK)
def test_the_shapes_decide_between_chained_and_merged(name):
    adapter = LOW_RANK[name](768, 3072)
    few, many = torch.zeros(2), torch.zeros(2)

    for tokens, flag in ((8, few), (20_000, many)):
        x = torch.empty(tokens, 3072, device="meta")
        flag[0], flag[1] = adapter.applies_factors(x, None), adapter.applies_factors_backward(x, None)

    assert few.all()
    assert not many.any()


def test_more_tokens_are_chained_in_half_precision_where_merging_is_in_full():
    adapter, x = RandLoRA(768, 3072, rank=10, alpha=1), torch.empty(2000, 3072, device="meta")

    assert not adapter.applies_factors_backward(x, None)
    assert adapter.applies_factors_backward(x.bfloat16(), None)
    assert not adapter.bfloat16().applies_factors_backward(x.bfloat16(), None)


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize(("out", "columns"), [(40, 24), (24, 40)])
@pytest.mark.parametrize("tokens", [4, 60])
def test_the_order_counts_the_operations_that_are_done(name, out, columns, tokens):
    adapter, weight = moved(LOW_RANK[name], out, columns), torch.randn(out, columns)
    x = torch.randn(tokens, columns, requires_grad=True)
    # RandLoRA's own pull_back contracts the factor's gradient with lam and gamma
    elementwise = 2 * adapter.inner * min(out, columns) if name == "randlora" else 0
    blocks = [AdaptedRows(adapter, slice(0, out))]

    done = count(lambda: adapted_linear(x, weight, None, blocks).sum().backward())

    fewest = min(operations(tokens, adapter.sizes(), order) for order in ORDERS)
    assert done == 2 * tokens * out * columns + fewest + elementwise


@pytest.mark.parametrize("trains", ["a", "b"])
def test_half_of_lora_may_be_frozen(trains):
    adapter = moved(LOW_RANK["lora"], 10, 7).requires_grad_(False)
    getattr(adapter, trains).requires_grad_(True)

    assert_equal_gradients(adapter, 2)
    assert_equal_gradients(adapter, 60)


def test_dropout_of_entries_has_the_gradients_of_torchs_dropout():
    adapter = moved(LOW_RANK["lora"], 10, 7, dropout=0.25).double()
    weight, x = torch.randn(10, 7).double(), torch.randn(60, 7).double().requires_grad_()
    inputs = [x, adapter.a, adapter.b]

    torch.manual_seed(1)
    y = adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, 10))])
    gradients = torch.autograd.grad(y.square().sum(), inputs)

    torch.manual_seed(1)
    plain = x @ weight.T + adapter.scale * F.dropout(x, 0.25) @ adapter.a.T @ adapter.b.T
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


def test_parameters_put_in_by_torch_func_get_the_gradients():
    layer = nn.Sequential(nn.Linear(6, 8))
    adapters = inject(layer, KRAdapter, ["0"]).adapters["0"]
    other = {f"0.adapters.0.{name}": torch.randn_like(p).requires_grad_() for name, p in adapters.named_parameters()}
    x = torch.randn(3, 6)

    torch.func.functional_call(layer, other, x).square().sum().backward()

    with torch.no_grad():
        adapters.u.copy_(other["0.adapters.0.u"])
        adapters.v.copy_(other["0.adapters.0.v"])
    layer(x).square().sum().backward()
    assert torch.equal(other["0.adapters.0.u"].grad, adapters.u.grad)
    assert torch.equal(other["0.adapters.0.v"].grad, adapters.v.grad)
