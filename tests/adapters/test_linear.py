"""The product with an adapted weight against plain autograd, in double precision."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.krona import KronA
from kravl.adapters.linear import adapted_linear
from kravl.adapters.lora import LoRA
from kravl.adapters.parameter import Block, adapted_weight
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

    y = adapted_linear(x, weight, bias, [Block(adapter, slice(0, shape[0]))])
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
        return adapted_linear(x, weight, None, [Block(adapter, slice(0, 6))])

    assert torch.autograd.gradcheck(product, (x, *factors))


def test_row_blocks_share_one_product_and_leave_the_other_rows_alone():
    weight, x = torch.randn(12, 5).double(), torch.randn(3, 5).double().requires_grad_()
    first = moved(KRAdapter, weight[0:4])
    thin = moved(METHODS["lora"], weight[8:12])
    blocks = [Block(first, slice(0, 4)), Block(thin, slice(8, 12))]
    factors = [*first.parameters(), *thin.parameters()]

    y = adapted_linear(x, weight, None, blocks)
    gradients = torch.autograd.grad(y.square().sum(), [x, *factors])

    updates = [first.update(weight[0:4]), torch.zeros(4, 5).double(), thin.update(weight[8:12])]
    plain = x @ (weight + torch.cat(updates)).T
    expected = torch.autograd.grad(plain.square().sum(), [x, *factors])
    assert torch.equal(y[:, 4:8], F.linear(x, weight)[:, 4:8])
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_no_dense_update_stays_alive_for_the_backward_pass(name):
    layer = nn.Sequential(nn.Linear(64, 96))
    inject(layer, METHODS[name], ["0"])
    x = torch.randn(2, 64, requires_grad=True)
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}
    kept = []

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)

    assert y.requires_grad
    assert sum(kept) <= 2 * 3  # LoRA's thin product


def test_the_dropout_mask_is_the_same_in_forward_and_backward():
    weight = torch.randn(6, 50).double()
    adapter, x = moved(KRAdapter, weight, dropout=0.5), torch.eye(50).double().requires_grad_()

    y = adapted_linear(x, weight, None, [Block(adapter, slice(0, 6))])
    (gradient,) = torch.autograd.grad(y.sum(), x)

    update = (y.T - weight).detach()  # x is the identity
    dropped = update.abs().sum(0) == 0
    assert 0 < dropped.sum() < 50
    torch.testing.assert_close(update[:, ~dropped], 2.0 * adapter.update(weight)[:, ~dropped])
    torch.testing.assert_close(gradient, (weight + update).sum(0).expand(50, 50))


def test_a_frozen_adapter_still_passes_the_gradient_to_its_input():
    weight = torch.randn(4, 3).double()
    adapter, x = moved(KRAdapter, weight).requires_grad_(False), torch.randn(2, 3).double().requires_grad_()

    adapted_linear(x, weight, None, [Block(adapter, slice(0, 4))]).sum().backward()

    torch.testing.assert_close(x.grad, (weight + adapter.update(weight)).sum(0).expand(2, 3))


def test_a_single_vector_is_a_valid_input():
    weight = torch.randn(4, 3).double()
    adapter, x = moved(KRAdapter, weight), torch.randn(3).double()

    y = adapted_linear(x, weight, None, [Block(adapter, slice(0, 4))])
    y.sum().backward()

    torch.testing.assert_close(y, adapted_weight(weight, [Block(adapter, slice(0, 4))]) @ x)
    assert adapter.u.grad is not None


def test_hooks_on_factors_see_each_gradient_once():
    layer = nn.Sequential(nn.Linear(3, 4))
    adapters = inject(layer, KRAdapter, ["0"])
    seen = []
    adapters.adapters["0"].u.register_hook(lambda gradient: seen.append(gradient))

    layer(torch.randn(2, 3)).sum().backward()

    assert len(seen) == 1


def test_a_factor_changed_before_backward_is_refused():
    layer = nn.Sequential(nn.Linear(3, 4))
    adapters = inject(layer, KRAdapter, ["0"])
    loss = layer(torch.randn(2, 3)).sum()
    with torch.no_grad():
        adapters.adapters["0"].u.add_(1.0)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_input_of_another_type_than_the_weight_is_refused_as_by_torch():
    layer = nn.Sequential(nn.Linear(3, 4, bias=False)).bfloat16()
    inject(layer, KRAdapter, ["0"])

    with pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(2, 3))


def test_autocast_builds_the_weight_in_fp32_and_multiplies_in_bf16():
    layer = nn.Sequential(nn.Linear(64, 64))
    adapters = inject(layer, METHODS["dora"], ["0"])
    with torch.no_grad():
        adapters.adapters["0"].b.add_(0.01)
    x = torch.randn(5, 64)
    weight = layer[0]._parameters["weight"] + adapters.adapters["0"].update(layer[0]._parameters["weight"])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)

    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.linear(x.bfloat16(), weight.bfloat16(), layer[0].bias.bfloat16()))


def test_compiled_gradients_equal_eager_ones():
    layer = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    adapters = inject(layer, KRAdapter, ["0", "2"])
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.1)
    x = torch.randn(5, 8)
    eager = torch.autograd.grad(layer(x).square().sum(), adapters.parameters())
    torch.compiler.reset()

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradients = torch.autograd.grad(compiled(x).square().sum(), adapters.parameters())

    for gradient, reference in zip(gradients, eager, strict=True):
        torch.testing.assert_close(gradient, reference)
