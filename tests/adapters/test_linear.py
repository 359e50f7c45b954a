"""The product with an adapted weight against plain autograd, in double precision."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.injection.linear import adapted_linear
from kravl.adapters.injection.parameter import AdaptedRows, adapted_weight
from kravl.adapters.kra import KRAdapter
from kravl.adapters.krona import KronA
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.sinlora import SinLoRA
from kravl.adapters.vera import VeRA

METHODS = {
    "kra": KRAdapter,
    "lora": partial(LoRA, rank=3, alpha=2),
    "sinlora": partial(SinLoRA, rank=3, alpha=2, omega=5.0),
    "randlora": partial(RandLoRA, rank=3, alpha=6),
    "krona": partial(KronA, factor=3),
    "vera": partial(VeRA, rank=3),
    "dora": partial(DoRA, rank=3, alpha=2),
    "full": Full,
}


def moved(make, weight, **kwargs):
    """A float64 adapter of ``weight``, away from its start."""
    adapter = make(*weight.shape, **kwargs).double()
    adapter.attach(weight)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return adapter


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(10, 7), (7, 10), (9, 9)])
def test_output_and_gradients_equal_plain_autograd(name, shape):
    weight, bias = torch.randn(shape).double(), torch.randn(shape[0]).double().requires_grad_()
    x, adapter = torch.randn(2, 5, shape[1]).double().requires_grad_(), moved(METHODS[name], weight)
    factors = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    pull = torch.randn(2, 5, shape[0]).double()

    y = adapted_linear(x, weight, bias, [AdaptedRows(adapter, slice(0, shape[0]))])
    gradients = torch.autograd.grad(y, [x, bias, *factors], pull)

    plain = x @ (weight + adapter.update(weight)).T + bias
    expected = torch.autograd.grad(plain, [x, bias, *factors], pull)
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_equal_finite_differences(name):
    weight = torch.randn(6, 5).double()
    adapter, x = moved(METHODS[name], weight), torch.randn(3, 5).double().requires_grad_()
    factors = [parameter for parameter in adapter.parameters() if parameter.requires_grad]

    def product(x, *_):
        return adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, 6))])

    assert torch.autograd.gradcheck(product, (x, *factors))


def test_row_blocks_share_one_product_and_leave_the_other_rows_alone():
    weight, x = torch.randn(12, 5).double(), torch.randn(3, 5).double().requires_grad_()
    first = moved(KRAdapter, weight[0:4])
    thin = moved(METHODS["lora"], weight[8:12])
    blocks = [AdaptedRows(first, slice(0, 4)), AdaptedRows(thin, slice(8, 12))]
    factors = [*first.parameters(), *thin.parameters()]

    y = adapted_linear(x, weight, None, blocks)
    gradients = torch.autograd.grad(y.square().sum(), [x, *factors])

    updates = [first.update(weight[0:4]), torch.zeros(4, 5).double(), thin.update(weight[8:12])]
    plain = x @ (weight + torch.cat(updates)).T
    expected = torch.autograd.grad(plain.square().sum(), [x, *factors])
    assert torch.equal(y[:, 4:8], F.linear(x, weight)[:, 4:8])
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def test_several_thin_branches_equal_their_dense_updates():
    weight, x = torch.randn(12, 5).double(), torch.randn(2, 3, 5).double().requires_grad_()
    rows = [slice(0, 4), slice(8, 12)]
    adapters = [moved(METHODS["lora"], weight[row]) for row in rows]
    factors = [parameter for adapter in adapters for parameter in adapter.parameters()]

    y = adapted_linear(x, weight, None, [AdaptedRows(a, row) for a, row in zip(adapters, rows, strict=True)])
    gradients = torch.autograd.grad(y.square().sum(), [x, *factors])

    updates = [adapters[0].update(weight[0:4]), torch.zeros(4, 5).double(), adapters[1].update(weight[8:12])]
    plain = x @ (weight + torch.cat(updates)).T
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(plain.square().sum(), [x, *factors])
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def test_the_dropout_mask_is_the_same_in_forward_and_backward():
    weight = torch.randn(6, 50).double()
    adapter, x = moved(KRAdapter, weight, dropout=0.5), torch.eye(50).double().requires_grad_()

    y = adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, 6))])
    (gradient,) = torch.autograd.grad(y.sum(), x)

    update = (y.T - weight).detach()  # x is the identity
    dropped = update.abs().sum(0) == 0
    assert 0 < dropped.sum() < 50
    torch.testing.assert_close(update[:, ~dropped], 2.0 * adapter.update(weight)[:, ~dropped])
    torch.testing.assert_close(gradient, (weight + update).sum(0).expand(50, 50))


def test_a_frozen_adapter_still_passes_the_gradient_to_its_input():
    weight = torch.randn(4, 3).double()
    adapter, x = moved(KRAdapter, weight).requires_grad_(False), torch.randn(2, 3).double().requires_grad_()

    adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, 4))]).sum().backward()

    torch.testing.assert_close(x.grad, (weight + adapter.update(weight)).sum(0).expand(2, 3))


def test_a_single_vector_is_a_valid_input():
    weight = torch.randn(4, 3).double()
    adapter, x = moved(KRAdapter, weight), torch.randn(3).double()

    y = adapted_linear(x, weight, None, [AdaptedRows(adapter, slice(0, 4))])
    y.sum().backward()

    torch.testing.assert_close(y, adapted_weight(weight, [AdaptedRows(adapter, slice(0, 4))]) @ x)
    assert adapter.u.grad is not None
