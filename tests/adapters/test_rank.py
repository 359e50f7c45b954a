"""Ranks against numpy's singular values and against matrices whose ranks are known."""

import numpy as np
import pytest
import torch

from kravl.adapters.rank import effective_rank, spectrum, stable_rank


@pytest.mark.parametrize("shape", [(40, 40), (30, 70), (70, 30), (1, 9)])
def test_ranks_equal_those_of_numpy_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    sigma = np.linalg.svd(matrix.double().numpy(), compute_uv=False)

    p = sigma / sigma.sum()
    assert effective_rank(matrix) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert stable_rank(matrix) == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-9)
    assert spectrum(matrix)["norm"] == pytest.approx(np.sqrt((sigma**2).sum()), rel=1e-9)
    assert spectrum(matrix)["spectral_norm"] == pytest.approx(sigma[0], rel=1e-9)


def test_a_low_rank_matrix_is_not_inflated_by_rounding():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(300, 8, generator=generator), torch.randn(8, 500, generator=generator)
    matrix = factors[0].double() @ factors[1].double()

    sigma = np.linalg.svd(matrix.numpy(), compute_uv=False)[:8]

    p = sigma / sigma.sum()
    assert effective_rank(matrix) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_known_ranks():
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert stable_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1, abs=1e-5)
    assert stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))) == pytest.approx(1.5)


def test_a_zero_matrix_has_rank_zero():
    assert spectrum(torch.zeros(3, 4)) == {"effective_rank": 0.0, "stable_rank": 0.0, "norm": 0.0, "spectral_norm": 0.0}


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12])
def test_ranks_do_not_depend_on_the_size_of_the_update(factor):
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).double()

    assert effective_rank(factor * matrix) == pytest.approx(effective_rank(matrix), rel=1e-9)
    assert spectrum(factor * matrix)["norm"] == pytest.approx(factor * matrix.norm().item(), rel=1e-9)
