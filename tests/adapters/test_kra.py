"""KRAdapter against the released layer's formula and against its closed-form optimum."""

import math

import pytest
import torch

from kravl.adapters.kra import KRAdapter
from kravl.adapters.rank import effective_rank
from kravl.runtime.errors import InputError

SHAPES = [
    *[(1, 1), (1, 7), (7, 1), (2, 3), (3, 3), (4, 4), (5, 5)],  # tiny
    *[(50, 37), (37, 50), (31, 31), (13, 101), (101, 13), (97, 89)],  # odd and prime
    *[(768, 768), (2304, 768), (3072, 768), (768, 3072), (512, 512), (2048, 512)],  # CLIP
]


def released_formula(adapter, shape):
    """Entry by entry with torch.kron: row i of the m x (r * c) update is v_i ⊗ u_i, transposed if ``in`` is short."""
    m, long = min(shape), max(shape)
    update = torch.stack([torch.kron(adapter.v[i], adapter.u[i]) for i in range(m)])[:, :long]
    return update.T if shape[1] < shape[0] else update


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split", ["short", "long"])
def test_the_update_equals_the_released_formula(shape, split):
    adapter = KRAdapter(*shape, split=split)
    torch.nn.init.normal_(adapter.u)

    delta = adapter.delta_weight()

    r = math.floor(math.sqrt(min(shape) if split == "short" else max(shape)))
    c = next(c for c in range(1, max(shape) + 1) if r * c >= max(shape))
    assert adapter.u.shape == (min(shape), r)
    assert adapter.v.shape == (min(shape), c)
    assert delta.shape == shape
    assert torch.equal(delta, released_formula(adapter, shape))


def test_one_entry_written_out():
    adapter = KRAdapter(9, 12)  # r = 3, c = 4
    torch.nn.init.normal_(adapter.u)

    assert adapter.delta_weight()[5, 2 * 3 + 1] == adapter.v[5, 2] * adapter.u[5, 1]


@pytest.mark.parametrize(
    ("shape", "num"),
    [((512, 512), 23_552), ((768, 768), 43_008), ((768, 1024), 49_920), ((3072, 768), 108_288), ((2304, 768), 86_784)],
)
def test_parameters_number_as_in_the_released_layer(shape, num):
    assert sum(parameter.numel() for parameter in KRAdapter(*shape).parameters()) == num


def test_the_toy_split_takes_the_root_of_the_longer_side():
    assert sum(parameter.numel() for parameter in KRAdapter(3072, 768, split="long").parameters()) == 85_248


@pytest.mark.parametrize("init_a", [5.0, math.sqrt(5)])
def test_v_starts_uniform_within_the_kaiming_bound_of_its_own_width(init_a):
    v = KRAdapter(768, 768, init_a=init_a).v

    bound = math.sqrt(2 / (1 + init_a**2)) * math.sqrt(3 / 29)
    assert v.abs().max() <= bound
    assert v.abs().max() > 0.99 * bound
    assert v.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("shape", [(16, 16), (20, 32), (32, 20)])
def test_training_reaches_the_closed_form_optimum(shape):
    """Each row, folded to (c, r), is approximated by its best rank-1 matrix; exact because r * c is the longer side."""
    torch.manual_seed(0)
    target = torch.randn(shape)
    adapter = KRAdapter(*shape, scale=1.0, init_a=math.sqrt(5))
    r, c = adapter.u.shape[1], adapter.v.shape[1]
    assert r * c == max(shape)
    rows = target if shape[0] <= shape[1] else target.T
    sigma = torch.linalg.svdvals(rows.unflatten(1, (c, r)))
    optimum = math.sqrt(rows.square().sum() - sigma[:, 0].square().sum())

    optimiser = torch.optim.LBFGS(adapter.parameters(), max_iter=300, line_search_fn="strong_wolfe")
    with torch.no_grad():
        adapter.u.fill_(0.1)

    def closure():
        optimiser.zero_grad()
        loss = (adapter.delta_weight() - target).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)

    reached = (adapter.delta_weight() - target).norm().item()
    assert reached >= optimum - 1e-4
    assert reached == pytest.approx(optimum, rel=0.02)


def test_the_factors_of_the_closed_form_optimum_attain_it():
    torch.manual_seed(0)
    target = torch.randn(16, 16)
    adapter = KRAdapter(16, 16, scale=1.0)

    left, sigma, right = torch.linalg.svd(target.unflatten(1, (4, 4)))
    adapter.v.data, adapter.u.data = left[:, :, 0] * sigma[:, :1], right[:, 0]

    error = (target - adapter.delta_weight()).norm()
    torch.testing.assert_close(error, (sigma[:, 1:].square().sum()).sqrt())


def test_it_cannot_represent_a_generic_rank_one_update_but_has_full_rank():
    torch.manual_seed(0)
    outer = torch.outer(torch.randn(64), torch.randn(64))
    sigma = torch.linalg.svdvals(outer.unflatten(1, (8, 8)))
    adapter = KRAdapter(64, 64)
    torch.nn.init.normal_(adapter.u)
    torch.nn.init.normal_(adapter.v)

    assert (1 - sigma[:, 0].square().sum() / outer.square().sum()).sqrt() > 0.5
    assert torch.linalg.matrix_rank(adapter.delta_weight().double()) == 64
    assert effective_rank(adapter.delta_weight()) > 40


@pytest.mark.parametrize("shape", [(192, 192), (768, 192), (512, 512), (768, 3072)])
def test_a_multiple_is_that_of_its_own_usual_size(shape):
    usual, same, twice = (KRAdapter(*shape, split=split) for split in ("short", "1x", "2x"))
    sizes = [sum(parameter.numel() for parameter in adapter.parameters()) for adapter in (usual, twice)]

    assert same.u.shape == usual.u.shape
    assert twice.u.shape[1] > usual.u.shape[1]  # not by V in one matrix of a model and by U in another
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.1)


def test_less_than_the_usual_size_is_refused_since_there_is_next_to_none():
    with pytest.raises(InputError, match=r"split=0\.5x: .* is the smallest of its kind"):
        KRAdapter(192, 192, split="0.5x")


def test_an_unknown_split_names_the_legal_ones():
    with pytest.raises(InputError, match="unknown split 'shrot': did you mean 'short'"):
        KRAdapter(4, 4, split="shrot")
