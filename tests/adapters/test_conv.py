"""The adapted convolution against plain autograd through the module's own forward, in double precision."""

import copy
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.low_rank import ORDERS, LowRankAdapter, operations
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.vera import VeRA

CONVS = {
    "3x3": (partial(nn.Conv2d, 6, 8, 3, padding=1), (2, 6, 7, 5)),
    "strided": (partial(nn.Conv2d, 6, 8, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 6, 7, 5)),
    "dilated": (partial(nn.Conv2d, 6, 8, 3, dilation=(1, 2), padding=(0, 2), bias=False), (2, 6, 7, 5)),
    "patches": (partial(nn.Conv2d, 3, 8, 4, stride=4), (2, 3, 8, 9)),
    "1x1": (partial(nn.Conv2d, 6, 30, 1), (2, 6, 4, 3)),
    "1x1 strided": (partial(nn.Conv2d, 30, 6, 1, stride=2), (2, 30, 4, 3)),
    "grouped": (partial(nn.Conv2d, 6, 9, 3, padding=1, groups=3), (2, 6, 4, 5)),
    "depthwise": (partial(nn.Conv2d, 12, 12, 3, padding=1, groups=12), (2, 12, 4, 5)),
    "depthwise, two each": (partial(nn.Conv2d, 4, 8, 3, stride=2, groups=4), (2, 4, 5, 5)),
    "same": (partial(nn.Conv2d, 6, 8, 3, padding="same", dilation=2), (2, 6, 7, 5)),
    "same, even": (partial(nn.Conv2d, 6, 8, (4, 3), padding="same"), (2, 6, 7, 5)),
    "valid": (partial(nn.Conv2d, 6, 8, 3, padding="valid"), (2, 6, 7, 5)),
    "circular": (partial(nn.Conv2d, 6, 8, 3, padding=(1, 2), padding_mode="circular"), (2, 6, 7, 5)),
    "reflect": (partial(nn.Conv2d, 6, 8, (2, 4), padding="same", padding_mode="reflect"), (2, 6, 7, 5)),
    "one map": (partial(nn.Conv2d, 6, 8, 3, padding=1), (6, 7, 5)),
    "1d": (partial(nn.Conv1d, 6, 8, 3, padding=1, stride=2), (2, 6, 9)),
    "standardised": (partial(timm.layers.StdConv2dSame, 6, 8, 3, stride=2), (2, 6, 7, 5)),
    "scaled": (partial(timm.layers.ScaledStdConv2d, 6, 8, 3, groups=2), (2, 6, 7, 5)),
    "padded inside": (partial(timm.layers.Conv2dSame, 6, 8, 3, stride=2), (2, 6, 7, 5)),
    "3d": (partial(nn.Conv3d, 2, 8, (1, 2, 3), padding=(0, 1, 1)), (2, 2, 3, 4, 5)),
}
LOW_RANK = {
    "lora": partial(LoRA, rank=3, alpha=2),
    "randlora": partial(RandLoRA, rank=3, alpha=6),
    "vera": partial(VeRA, rank=3),
}
METHODS = {**LOW_RANK, "kra": KRAdapter, "dora": partial(DoRA, rank=3, alpha=2), "full": Full}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(kind, make, **kwargs):
    """A float64 convolution with an adapter away from its start, the same without, the adapter, and an input."""
    build, shape = CONVS[kind]
    plain = nn.Sequential(build()).double()
    layer = copy.deepcopy(plain)
    adapter = inject(layer, partial(make, **kwargs), ["0"], unfreeze=["0.bias"] * (plain[0].bias is not None))
    with torch.no_grad():
        for parameter in adapter.adapters["0"].parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer, plain, adapter.adapters["0"], torch.randn(shape).double().requires_grad_()


def dense(plain, adapter, x, mask=None):
    """The convolution with W + ΔW, by autograd through nn.Conv's own forward, and what its gradients are asked of."""
    weight = plain[0].weight.detach()
    update = adapter(weight.flatten(1), mask).reshape(weight.shape)
    return functional_call(plain, {"0.weight": weight + update}, x)


def assert_equal_gradients(layer, plain, adapter, x, mask=None):
    """Of output, input, bias and factors."""
    factors = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    biases = [(layer[0].bias, plain[0].bias)] * (plain[0].bias is not None)

    torch.manual_seed(1)
    y = layer(x)
    pull = torch.randn_like(y)
    gradients = torch.autograd.grad(y, [x, *factors, *(ours for ours, _ in biases)], pull)

    expected = dense(plain, adapter, x, mask)
    references = torch.autograd.grad(expected, [x, *factors, *(theirs for _, theirs in biases)], pull)
    # sums of at most 54 products in another order, of values below 100
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, references, rtol=1e-11, atol=1e-11)
    assert y.stride() == expected.stride()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own, once a process
@pytest.mark.parametrize("name", METHODS)
def test_output_and_gradients_equal_plain_autograd(name):
    for kind in CONVS:
        assert_equal_gradients(*adapted(kind, METHODS[name]))


def test_those_of_every_adapter_do(make_adapter):
    for kind in ("strided", "1x1", "grouped", "depthwise"):
        assert_equal_gradients(*adapted(kind, make_adapter))


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize("kind", ["strided", "1x1", "grouped", "1d"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_products_has_the_gradients_of_the_dense_update(name, kind, order, monkeypatch):
    monkeypatch.setattr("kravl.adapters.injection.conv._order", lambda *_: order)
    layer, plain, adapter, x = adapted(kind, LOW_RANK[name])
    columns = torch.bernoulli(torch.full((adapter.in_features,), 0.5)).double() * 2

    assert_equal_gradients(layer, plain, adapter, x)
    monkeypatch.setattr(type(adapter), "draw_mask", lambda self, x: columns)
    assert_equal_gradients(layer, plain, adapter, x, columns)


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-2]])
@pytest.mark.parametrize("trains", ["a", "b"])
def test_half_of_lora_may_be_frozen(trains, order, monkeypatch):
    monkeypatch.setattr(LowRankAdapter, "order", lambda *_: order)
    layer, plain, adapter, x = adapted("3x3", METHODS["lora"])
    adapter.requires_grad_(False)
    getattr(adapter, trains).requires_grad_(True)

    assert_equal_gradients(layer, plain, adapter, x)


@pytest.mark.parametrize("name", ["kra", "lora"])
def test_a_frozen_adapter_passes_the_gradient_to_its_input(name):
    layer, plain, adapter, x = adapted("3x3", METHODS[name])
    adapter.requires_grad_(False)

    assert_equal_gradients(layer, plain, adapter, x)


@pytest.mark.parametrize("name", ["kra", "lora", "full"])
def test_a_first_layer_takes_no_gradient_of_its_images(name):
    layer = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4))
    adapters, x = inject(layer, METHODS[name], ["0"], unfreeze=["0.bias"]), torch.randn(2, 3, 40, 40)
    loss = layer(x).sum()

    with FlopCounterMode(display=False) as counter:
        loss.backward()

    dense, thin, contraction = 200 * 8 * 48, 200 * 3 * (2 * 48 + 2 * 8), 2 * 8 * 48
    assert counter.get_total_flops() == 2 * {"kra": dense + contraction, "lora": thin, "full": dense}[name]
    assert torch.equal(layer[0].bias.grad, torch.full((8,), 200.0))
    assert all(parameter.grad is not None for parameter in adapters.parameters())


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize(("out", "columns", "width"), [(40, 24, 1), (24, 8, 3)])
@pytest.mark.parametrize("size", [2, 9])
def test_the_order_counts_the_operations_that_are_done(name, out, columns, width, size):
    layer = nn.Sequential(nn.Conv2d(columns, out, width, padding=width // 2))
    adapter = inject(layer, LOW_RANK[name], ["0"]).adapters["0"]
    x, unfolded = torch.randn(1, columns, size, size, requires_grad=True), columns * width**2
    # RandLoRA's own pull_back contracts the factor's gradient with lam and gamma
    elementwise = 2 * adapter.inner * min(out, unfolded) if name == "randlora" else 0
    in_place = {torch.ops.aten.addmm_: lambda y, a, b, **_: 2 * a[0] * a[1] * b[1]}  # which the counter leaves out

    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        layer(x).sum().backward()

    fewest = min(operations(size**2, adapter.sizes(), order) for order in ORDERS)
    assert counter.get_total_flops() == 2 * (2 * size**2 * out * unfolded + fewest + elementwise)


@pytest.mark.parametrize("kind", ["3x3", "1x1 strided", "grouped", "depthwise", "same, even", "one map", "1d"])
def test_loras_dropout_is_torchs_on_the_map_and_two_thin_convolutions(kind):
    layer, plain, adapter, x = adapted(kind, METHODS["lora"], dropout=0.25)
    conv, inputs = plain[0], [x, adapter.a, adapter.b]

    torch.manual_seed(1)
    y = layer(x)
    gradients = torch.autograd.grad(y.square().sum(), inputs)

    if kind == "same, even":  # what enters the convolution is dropped, zeros around it or not
        conv, x = nn.Conv2d(6, 8, (4, 3), padding=(1, 1)).double(), F.pad(x, (0, 0, 0, 1))
        conv.load_state_dict(plain[0].state_dict())
    groups, ones = conv.groups, (1,) * len(conv.kernel_size)
    torch.manual_seed(1)
    down = adapter.a.view(-1, *conv.weight.shape[1:]).repeat(groups, *ones, 1)
    hidden = functional_call(conv, {"weight": down, "bias": down.new_zeros(len(down))}, F.dropout(x, 0.25))
    up = F.conv1d if kind == "1d" else F.conv2d
    expected = conv(x) + adapter.scale * up(hidden, adapter.b.view(*adapter.b.shape, *ones), groups=groups)
    references = torch.autograd.grad(expected.square().sum(), inputs)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, references, rtol=1e-11, atol=1e-11)


def test_other_adapters_drop_columns_of_the_update_alike_in_both_passes():
    layer, plain, adapter, x = adapted("3x3", KRAdapter, dropout=0.5)
    torch.manual_seed(1)
    mask = adapter.draw_mask()

    assert 0 < mask.count_nonzero() < 54
    assert_equal_gradients(layer, plain, adapter, x, mask)


def test_nothing_is_dropped_in_evaluation():
    layer, plain, adapter, x = adapted("3x3", METHODS["lora"], dropout=0.5)

    assert_equal_gradients(layer.eval(), plain, adapter, x)


@pytest.mark.parametrize("name", ["kra", "lora", "full"])
@pytest.mark.parametrize("kind", ["3x3", "grouped", "1x1", "3d"])
@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-2]])
def test_channels_last_kernels_are_read_as_they_lie(name, kind, order, monkeypatch):
    monkeypatch.setattr(LowRankAdapter, "order", lambda *_: order)
    layer, plain, adapter, x = adapted(kind, METHODS[name])
    form = torch.channels_last_3d if kind == "3d" else torch.channels_last
    layer, plain = layer.to(memory_format=form), plain.to(memory_format=form)
    before = layer[0]._parameters["weight"].clone()

    assert layer[0]._parameters["weight"].is_contiguous(memory_format=form)
    assert_equal_gradients(layer, plain, adapter, x.detach().contiguous(memory_format=form).requires_grad_())
    assert torch.equal(layer[0]._parameters["weight"], before)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["kra", "lora", "dora"])
def test_merging_writes_the_unfolded_update_and_unmerging_restores_every_bit(name, channels_last):
    plain = nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.Conv2d(8, 4, 1))
    plain = plain.to(memory_format=torch.channels_last) if channels_last else plain
    layer, x = copy.deepcopy(plain), torch.randn(2, 6, 5, 5)
    adapters = inject(layer, METHODS[name], ["*"])
    assert torch.equal(layer(x), plain(x))
    hashed = adapters.base_sha256()
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    y, deltas = layer(x), dict(adapters.deltas())

    adapters.merge(alpha=0.5)
    halfway = layer[0].weight.clone()
    inside = dict(adapters.deltas())
    adapters.unmerge()
    restored = layer[0]._parameters["weight"].clone()
    adapters.merge_and_unload()

    torch.testing.assert_close(halfway, plain[0].weight + 0.5 * deltas["0"].view(8, 3, 3, 3))
    torch.testing.assert_close(inside, deltas)
    assert torch.equal(restored, plain[0].weight)
    assert [type(module) for module in layer] == [nn.Conv2d, nn.Conv2d]
    assert layer[0].weight.stride() == plain[0].weight.stride()
    torch.testing.assert_close(layer(x), y)
    assert inject(plain.to(memory_format=torch.contiguous_format), METHODS[name], ["*"]).base_sha256() == hashed


def test_no_dense_update_stays_alive_for_the_backward_pass(make_adapter):
    layer = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1))
    adapter = inject(layer, make_adapter, ["0"]).adapters["0"]
    x = torch.randn(2, 16, 3, 3, requires_grad=True)
    known, saved = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}, []

    def pack(tensor):
        saved.append(tensor.numel() * (tensor.untyped_storage().data_ptr() not in known))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)

    between = adapter.inner if isinstance(adapter, LowRankAdapter) else 0  # the map between the factors
    assert len(saved) >= 2
    assert sum(saved) <= 2 * 3 * 3 * between


def test_bf16_autocast_builds_the_kernel_in_fp32_and_convolves_in_bf16():
    layer, plain, adapter, x = adapted("3x3", METHODS["dora"])
    layer, plain, x = layer.float(), plain.float(), x.detach().float()
    weight = plain[0].weight + adapter.update(plain[0].weight.flatten(1)).view(8, 6, 3, 3)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)

    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.conv2d(x.bfloat16(), weight.bfloat16(), plain[0].bias.bfloat16(), padding=1))


@pytest.mark.parametrize("name", ["kra", "lora"])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("size", [4, 16])
def test_bf16_is_as_close_to_float64_as_plain_autocast(name, width, size):
    layer = nn.Sequential(nn.Conv2d(32, 96, width, padding=width // 2))
    adapter = inject(layer, {**METHODS, "lora": partial(LoRA, rank=8, alpha=8)}[name], ["0"]).adapters["0"]
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    x, pull = torch.randn(2, 32, size, size).requires_grad_(), torch.randn(2, 96, size, size)

    def plain(layer, adapter, x):  # factor by factor where there are factors, as PEFT does
        weight, convolve = layer._parameters["weight"], partial(F.conv2d, padding=width // 2)
        if name == "kra":
            return convolve(x, weight + adapter.update(weight.flatten(1)).view(weight.shape), layer.bias)
        share = F.conv2d(convolve(x, adapter.a.view(-1, *weight.shape[1:])), adapter.b[..., None, None])
        return convolve(x, weight, layer.bias) + adapter.scale * share

    def values(compute, adapter, x):
        y = compute(x)
        return [y, *torch.autograd.grad(y, [x, *adapter.parameters()], pull.to(y.dtype))]

    twin, x64 = copy.deepcopy(layer[0]).double(), x.detach().double().requires_grad_()
    exact = values(partial(plain, twin, twin.adapters[0]), twin.adapters[0], x64)
    with torch.autocast("cpu", torch.bfloat16):
        ours = values(layer, adapter, x)
        torchs = values(partial(plain, layer[0], adapter), adapter, x)

    assert all(gradient.dtype == torch.float32 for gradient in ours[1:])
    for a, b, reference in zip(ours, torchs, exact, strict=True):
        assert 0 < (a.double() - reference).norm() < 1.1 * (b.double() - reference).norm()


@pytest.mark.parametrize(("name", "dropout"), [("kra", 0.0), ("lora", 0.0), ("lora", 0.5)])
def test_compiled_gradients_equal_eager_ones(name, dropout):
    layer = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.GELU(), nn.Conv2d(6, 4, 1)).double()
    adapters = inject(layer, partial(METHODS[name], dropout=dropout), ["0", "2"])
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.1)
    x = torch.randn(5, 4, 3, 3).double()
    torch.manual_seed(1)
    eager = torch.autograd.grad(layer(x).square().sum(), adapters.parameters())
    torch.compiler.reset()

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    gradients = torch.autograd.grad(compiled(x).square().sum(), adapters.parameters())

    torch.testing.assert_close(gradients, eager)


def test_an_input_that_does_not_fit_is_refused_as_by_torch():
    layer, plain, _, _ = adapted("3x3", KRAdapter)

    for wrong in (torch.randn(2, 5, 7, 5).double(), torch.randn(7, 5).double(), torch.randn(2, 6, 7, 5)):
        with pytest.raises(RuntimeError) as theirs:
            plain(wrong)
        with pytest.raises(RuntimeError) as ours:
            layer(wrong)
        assert str(ours.value)[:10] == str(theirs.value)[:10]
