"""Errors are relative, the singular-value error is blind to directions, and known matrices have known ranks."""

import pytest
import torch

from kravl.analysis.approximation.fit import Decomposed, measure

GENERATOR = torch.Generator().manual_seed(0)
MATRIX = torch.randn(30, 40, generator=GENERATOR, dtype=torch.float64)


def test_the_target_itself_has_no_error():
    measured = measure(Decomposed(MATRIX), Decomposed(MATRIX))

    assert measured["frobenius_error"] == measured["spectral_error"] == measured["singular_value_error"] == 0.0
    assert measured["overlap"] == pytest.approx(1.0)
    assert measured["effective_rank"] == measured["target_effective_rank"]


def test_the_right_spectrum_in_wrong_directions_is_seen_by_all_but_the_singular_value_error():
    q, _ = torch.linalg.qr(torch.randn(30, 30, generator=GENERATOR, dtype=torch.float64))

    measured = measure(Decomposed(q @ MATRIX), Decomposed(MATRIX))

    assert measured["singular_value_error"] == pytest.approx(0.0, abs=1e-12)
    assert measured["frobenius_error"] > 1.0
    assert measured["overlap"] < 0.9


def test_zero_is_as_far_as_the_target_is_long():
    measured = measure(Decomposed(torch.zeros_like(MATRIX)), Decomposed(MATRIX))

    assert measured["frobenius_error"] == 1.0
    # LAPACK takes other ways to singular values with and without vectors, each with an error of a few eps a row
    assert measured["spectral_error"] == pytest.approx(1.0, rel=4 * 40 * torch.finfo(torch.float64).eps)
    assert measured["effective_rank"] == measured["nuclear_norm"] == 0.0


@pytest.mark.parametrize(
    ("matrix", "effective", "stable", "nuclear"),
    [
        (torch.eye(7), 7.0, 7.0, 7.0),
        (torch.ones(4, 9), 1.0, 1.0, 6.0),
        (torch.diag(torch.tensor([2.0, 1.0, 1.0])), 2 ** (3 / 2), 1.5, 4.0),  # p = 1/2, 1/4, 1/4
    ],
)
def test_known_matrices_have_known_ranks(matrix, effective, stable, nuclear):
    measured = Decomposed(matrix.double()).describe()

    assert measured["effective_rank"] == pytest.approx(effective, rel=1e-12)
    assert measured["stable_rank"] == pytest.approx(stable, rel=1e-12)
    assert measured["nuclear_norm"] == pytest.approx(nuclear, rel=1e-12)


def test_a_spectrum_is_kept_at_equal_steps_from_the_first_value_to_the_last():
    points = Decomposed(torch.diag(torch.arange(200.0, 0.0, -1.0)).double()).points()

    assert (len(points), points[0], points[-1]) == (64, 200.0, 1.0)
