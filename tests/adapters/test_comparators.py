"""The methods that KRAdapter is compared with, against formulas written another way."""

import math

import pytest
import torch

from kravl.adapters.bat import Bat
from kravl.adapters.c3a import C3A
from kravl.adapters.delora import DeLoRA
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.hra import HRA
from kravl.adapters.injection.linear import adapted_linear
from kravl.adapters.injection.parameter import AdaptedRows
from kravl.adapters.loha import LoHa
from kravl.adapters.lokr import LoKr
from kravl.adapters.miss import MiSS
from kravl.adapters.oft import OFT
from kravl.adapters.pissa import PiSSA
from kravl.adapters.psoft import PSOFT
from kravl.adapters.road import RoAd
from kravl.adapters.shira import SHiRA
from kravl.adapters.svd import leading_directions
from kravl.adapters.waveft import WaveFT

SHAPES = [(12, 18), (18, 12), (12, 12)]


def moved(adapter, weight=None):
    """In double precision, with all that trains away from its start."""
    torch.manual_seed(0)
    adapter = adapter.double()
    if weight is not None:
        adapter.attach(weight)
    for parameter in adapter.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return adapter


def drawn(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_shira_changes_its_positions_and_no_other(shape):
    adapter = moved(SHiRA(*shape, num_values=40))

    delta = adapter.delta_weight().flatten()

    assert torch.equal(delta.nonzero().flatten(), adapter.positions)
    assert torch.equal(delta[adapter.positions], adapter.values)


@pytest.mark.parametrize("shape", SHAPES)
def test_hira_multiplies_each_entry_of_the_weight(shape):
    weight = drawn(shape)
    weight[2, 3] = 0.0
    adapter = moved(HiRA(*shape, rank=2, scale=0.5), weight)

    update = adapter.update(weight)

    assert update[2, 3] == 0.0
    torch.testing.assert_close(update[1, 5], 0.5 * weight[1, 5] * (adapter.b[1] @ adapter.a[:, 5]))
    assert torch.linalg.matrix_rank(update) == 12


@pytest.mark.parametrize("shape", SHAPES)
def test_loha_is_a_product_of_khatri_rao_factors_of_rank_r_squared(shape):
    adapter = moved(LoHa(*shape, rank=2))

    left = torch.einsum("or,os->ors", adapter.b1, adapter.b2).flatten(1)
    right = torch.einsum("ri,si->rsi", adapter.a1, adapter.a2).flatten(0, 1)

    torch.testing.assert_close(adapter.delta_weight(), left @ right)
    assert torch.linalg.matrix_rank(adapter.delta_weight()) == 4


def test_abba_starts_with_the_weight_in_one_factor_and_zero_in_the_other():
    weight = drawn((12, 18))
    adapter = LoHa(12, 18, rank=3, init="abba").double()
    adapter.attach(weight)

    u, s, vh = torch.linalg.svd(weight)

    torch.testing.assert_close(adapter.b1 @ adapter.a1, u[:, :3] * s[:3] @ vh[:3])
    assert torch.count_nonzero(adapter.update(weight)) == 0
    assert adapter.a2.count_nonzero()


@pytest.mark.parametrize("shape", SHAPES)
def test_c3a_correlates_blocks_with_circulant_kernels(shape):
    adapter = moved(C3A(*shape, block=6))
    delta = adapter.delta_weight()

    for i, j in ((0, 0), (3, 8), (11, 11), (7, 2)):
        kernel = adapter.kernel[i // 6, j // 6]
        torch.testing.assert_close(delta[i, j], kernel[(j - i) % 6] / shape[1])


@pytest.mark.parametrize("shape", [*SHAPES, (7, 9), (8, 5), (1, 6), (6, 1)])
def test_fourierft_is_the_real_part_of_an_inverse_transform(shape):
    number = math.prod(shape) - 2
    adapter = moved(FourierFT(*shape, num_coefficients=number, seed=3))
    positions = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(3))[:number].sort().values
    spectrum = torch.zeros(math.prod(shape), dtype=torch.float64)
    spectrum[positions] = adapter.coefficients.detach()

    torch.testing.assert_close(adapter.delta_weight().detach(), torch.fft.ifft2(spectrum.view(shape)).real)


def test_fourierft_computes_bf16_coefficients_in_single_precision():
    adapter = moved(FourierFT(8, 6, num_coefficients=30))
    expected = adapter.float().delta_weight()

    delta = adapter.bfloat16().delta_weight()

    assert delta.dtype == torch.bfloat16
    torch.testing.assert_close(delta.float(), expected, rtol=0.05, atol=2e-3)  # coefficients of 8 bits


@pytest.mark.parametrize("shape", [*SHAPES, (7, 9)])
def test_waveft_adds_orthonormal_haar_functions(shape):
    number = math.prod(shape) - 2
    adapter = moved(WaveFT(*shape, num_coefficients=number))
    places = [divmod(p, adapter.even[1]) for p in adapter.positions.tolist()]
    total = torch.zeros(adapter.even, dtype=torch.float64)
    for (row, column), value in zip(places, adapter.coefficients.detach(), strict=True):
        rows, columns = adapter.even[0] // 2, adapter.even[1] // 2
        (down, i), (right, j) = divmod(row, rows), divmod(column, columns)
        # the upper right quadrant alternates along the rows, the lower left one along the columns, as in PEFT
        vertical, horizontal = torch.tensor([1.0, -1.0 if right else 1.0]), torch.tensor([1.0, -1.0 if down else 1.0])
        total[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += 0.5 * value * torch.outer(vertical, horizontal)

    torch.testing.assert_close(adapter.delta_weight().detach(), total[: shape[0], : shape[1]])


def test_pissa_trains_what_the_weight_has_most_of():
    weight = drawn((12, 18))
    adapter = PiSSA(12, 18, rank=3, scale=0.5).double()
    adapter.attach(weight)
    u, s, vh = torch.linalg.svd(weight)
    assert torch.count_nonzero(adapter.update(weight)) == 0
    torch.testing.assert_close(0.5 * adapter.start_b @ adapter.start_a, u[:, :3] * s[:3] @ vh[:3])

    moved(adapter)

    trained = 0.5 * (adapter.start_b + adapter.b) @ (adapter.start_a + adapter.a)
    torch.testing.assert_close(weight + adapter.update(weight), weight - u[:, :3] * s[:3] @ vh[:3] + trained)


def test_directions_do_not_depend_on_signs_that_a_decomposition_is_free_to_choose():
    weight = drawn((12, 18))
    u, s, vh = leading_directions(weight, 4)

    torch.testing.assert_close(u * s @ vh, torch.linalg.svd(weight)[0][:, :4] * s @ torch.linalg.svd(weight)[2][:4])
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()
    torch.testing.assert_close(leading_directions(weight[:, torch.arange(17, -1, -1)], 4)[0], u)


@pytest.mark.parametrize("shape", SHAPES)
def test_gralora_is_a_grid_of_low_rank_blocks(shape):
    adapter = moved(GraLoRA(*shape, rank=6, grid=3))
    delta, rows, columns = adapter.delta_weight(), shape[0] // 3, shape[1] // 3

    for j in range(3):
        for n in range(3):
            block = adapter.b[j][:, 2 * n : 2 * n + 2] @ adapter.a[n][2 * j : 2 * j + 2]
            torch.testing.assert_close(
                delta[j * rows : (j + 1) * rows, n * columns : (n + 1) * columns], block, rtol=1e-10, atol=1e-12
            )


def test_delora_goes_no_farther_than_its_bound():
    weight = drawn((12, 18))
    adapter = moved(DeLoRA(12, 18, rank=4, boundary=2.0), weight)

    relative = adapter.update(weight) / weight.norm(dim=0)
    larger = adapter.strength.item()
    assert torch.linalg.matrix_norm(relative, "nuc") <= larger + 1e-9
    adapter.b.data *= 100.0  # its length does not count
    torch.testing.assert_close(adapter.update(weight) / weight.norm(dim=0), relative)


def test_miss_repeats_its_columns():
    adapter = moved(MiSS(12, 18, rank=5))

    delta = adapter.delta_weight()

    assert torch.equal(delta[:, 7], adapter.d[:, 2])
    assert torch.equal(delta[:, 17], adapter.d[:, 2])


def test_bat_multiplies_and_adds_in_each_block():
    weight = drawn((12, 18))
    adapter = moved(Bat(12, 18, rank=3), weight)

    update = adapter.update(weight)

    block = weight[6:9, 3:6] @ adapter.d[2] + adapter.d[2]
    torch.testing.assert_close(update[6:9, 3:6], block)


@pytest.mark.parametrize("rank", [None, 2])
def test_lokr_is_a_kronecker_product(rank):
    adapter = moved(LoKr(12, 18, factor=3, rank=rank))

    second = adapter.w2 if rank is None else adapter.b @ adapter.a

    torch.testing.assert_close(adapter.delta_weight()[4:8, 12:18], adapter.w1[1, 2] * second)


@pytest.mark.parametrize(("terms", "exact"), [(None, 1e-12), (12, 1e-4), (5, 0.2)])
def test_oft_rotates_groups_of_inputs(terms, exact):
    weight = drawn((12, 18))
    adapter = OFT(12, 18, block=3, terms=terms).double()
    adapter.triangles.data.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(0))

    adapted = weight + adapter.update(weight)

    groups = weight.view(12, 6, 3).transpose(0, 1)
    rotated = adapted.view(12, 6, 3).transpose(0, 1)
    torch.testing.assert_close(rotated @ rotated.mT, groups @ groups.mT, rtol=0, atol=exact)
    assert (adapted - weight).norm() > 0.1 * weight.norm()


@pytest.mark.parametrize("rank", [2, 6])
def test_hra_reflects_the_input_again_and_again(rank):
    weight = drawn((12, 18))
    adapter = moved(HRA(12, 18, rank=rank), weight)

    expected = weight
    for u in adapter.u.detach():
        expected = expected @ (torch.eye(18, dtype=torch.float64) - 2 * torch.outer(u, u) / u.square().sum())

    torch.testing.assert_close(weight + adapter.update(weight).detach(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hra_starts_at_exactly_zero_although_its_reflections_do_not(dtype):
    weight = drawn((40, 70)).to(dtype)

    assert torch.count_nonzero(HRA(40, 70, rank=20).update(weight)) == 0


@pytest.mark.parametrize("variant", [1, 2])
def test_road_rotates_pairs_of_outputs(variant):
    weight = drawn((13, 5))
    adapter = moved(RoAd(13, 5, variant=variant), weight)

    adapted = weight + adapter.update(weight)

    for i in range(6):
        first, second = (adapter.theta[i],) * 2 if variant == 1 else (adapter.theta[i], adapter.theta[6 + i])
        one, two = (adapter.alpha[i],) * 2 if variant == 1 else (adapter.alpha[i], adapter.alpha[6 + i])
        torch.testing.assert_close(adapted[i], one * (first.cos() * weight[i] - first.sin() * weight[6 + i]))
        torch.testing.assert_close(adapted[6 + i], two * (second.cos() * weight[6 + i] + second.sin() * weight[i]))
    assert torch.equal(adapted[12], weight[12])


def test_psoft_keeps_the_angles_between_what_it_rotates():
    weight = drawn((12, 18))
    adapter = PSOFT(12, 18, rank=4).double()
    adapter.attach(weight)
    adapter.triangle.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))

    u, s, vh = torch.linalg.svd(weight)
    residual = weight - u[:, :4] * s[:4] @ vh[:4]
    rotated = weight + adapter.update(weight) - residual

    torch.testing.assert_close(torch.linalg.svdvals(rotated)[:4], s[:4])  # R alone, between U S and Vᵀ
    assert (rotated - u[:, :4] * s[:4] @ vh[:4]).norm() > 0.1


@pytest.mark.parametrize("make", [OFT, HRA])
def test_a_rotation_of_a_part_of_the_rows_gets_its_own_gradient(make):
    """A fused weight has several adapters, so that dL/dx is not the product with one of them alone."""
    weight, x = drawn((12, 6)), drawn((5, 6)).requires_grad_()
    adapters = [moved(make(4, 6), weight[rows]) for rows in (slice(0, 4), slice(4, 8))]
    blocks = [AdaptedRows(adapter, slice(4 * i, 4 * i + 4)) for i, adapter in enumerate(adapters)]
    parameters = [parameter for adapter in adapters for parameter in adapter.parameters()]
    towards_y = torch.randn(5, 12, dtype=torch.float64)

    y = adapted_linear(x, weight, None, blocks)
    adapted = torch.cat([w + a.update(w) for a, w in zip(adapters, (weight[:4], weight[4:8]), strict=True)])
    expected = x @ torch.cat([adapted, weight[8:]]).T

    torch.testing.assert_close(y, expected)
    for found, wanted in zip(
        torch.autograd.grad(y, [x, *parameters], towards_y),
        torch.autograd.grad(expected, [x, *parameters], towards_y),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
