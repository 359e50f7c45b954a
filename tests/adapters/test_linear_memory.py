"""What the product with an adapted weight keeps, rebuilds and refuses between forward and backward."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kravl.adapters.dora import DoRA
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.low_rank import LowRankAdapter


def test_no_dense_update_stays_alive_for_the_backward_pass(make_adapter):
    layer = nn.Sequential(nn.Linear(64, 96))
    adapter = inject(layer, make_adapter, ["0"]).adapters["0"]
    x = torch.randn(2, 64, requires_grad=True)
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}
    saved = []

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)

    assert y.requires_grad
    # what is between the factors of a chain, less than the input; the update has 6,144 entries
    between = adapter.inner if isinstance(adapter, LowRankAdapter) else 31 if adapter.applies_factors(x, None) else 0
    assert sum(saved) <= 2 * between


class Gated(nn.Module):
    """QuickGELU's form: its output is a product of two tensors that autograd keeps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


def _gradients(model: nn.Module, x: torch.Tensor, adapters) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    loss = model(x).square().sum()
    return [loss, *torch.autograd.grad(loss, [x, *adapters.parameters()])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_input_that_is_a_product_is_multiplied_again_instead_of_kept(dtype, make_adapter):
    model = nn.Sequential(nn.Linear(8, 12), Gated(), nn.Linear(12, 8))
    adapters = inject(model, make_adapter, ["2"])
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.1)
    x = torch.randn(5, 8)
    addresses = []
    model[1].register_forward_hook(lambda _, __, y: addresses.append(y.untyped_storage()._cdata))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        node = model(x.clone().requires_grad_()).grad_fn
        spared = _gradients(model, x, adapters)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            kept = _gradients(model, x, adapters)  # as gradient checkpointing, a hook sees what is saved

    assert all(torch.equal(a, b) for a, b in zip(spared, kept, strict=True))
    assert addresses[0] not in [t.untyped_storage()._cdata for t in node.saved_tensors if t is not None]


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
    adapters = inject(layer, partial(DoRA, rank=3, alpha=2), ["0"])
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


def _written(x, sides):
    with torch.no_grad():
        x[:, 0] = 0.0


def _differentiated(x, sides):
    torch.autograd.grad(x.sum(), sides[0])  # which frees what autograd keeps of the product


def _changed(x, sides):
    with torch.no_grad():
        sides[0].add_(1.0)


@pytest.mark.parametrize("happens", [_written, _differentiated, _changed])
def test_a_product_that_cannot_be_multiplied_again_is_kept(happens):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 4))
    adapters = inject(layer, KRAdapter, ["0"])
    for parameter in adapters.parameters():
        nn.init.normal_(parameter)
    sides = [torch.randn(5, 6, requires_grad=True) for _ in range(2)]
    x = sides[0] * sides[1]

    happens(x, sides)

    expected = torch.autograd.grad(layer(x.detach()).square().sum(), adapters.parameters())
    for gradient, reference in zip(
        torch.autograd.grad(layer(x).square().sum(), adapters.parameters()), expected, strict=True
    ):
        assert torch.equal(gradient, reference)
