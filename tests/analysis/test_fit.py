"""Fits follow from the seed, do not depend on the target's size, and say when they diverge."""

import pytest
import torch

from kravl.adapters.dora import DoRA
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.analysis.approximation.fit import FitDivergedError, FitSettings, fit_adapter

SETTINGS = FitSettings(30, 0.05, "cosine", 0.0, 1.0, True)
TARGET = torch.randn(12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def fitted(make, target=TARGET, settings=SETTINGS):
    torch.manual_seed(1)
    return fit_adapter(make(*target.shape), target, settings)


def test_the_size_of_the_target_does_not_matter_where_it_is_normalised():
    once, smaller = fitted(KRAdapter), fitted(KRAdapter, 1e-4 * TARGET)

    torch.testing.assert_close(smaller, 1e-4 * once)


def test_without_normalisation_it_does():
    plain = FitSettings(30, 0.05, "constant", 0.0, 1.0, False)

    once, smaller = fitted(KRAdapter, settings=plain), fitted(KRAdapter, 1e-4 * TARGET, plain)

    assert not torch.allclose(smaller, 1e-4 * once, rtol=0.1)


def test_the_scale_of_the_study_takes_the_place_of_the_adapters_own():
    adapter = LoRA(12, 10, rank=2, alpha=8)

    fit_adapter(adapter, TARGET, SETTINGS)
    unscaled = FitSettings(1, 0.05, "cosine", 0.0, None, True)
    other = LoRA(12, 10, rank=2, alpha=8)
    fit_adapter(other, TARGET, unscaled)

    assert (adapter.scale, other.scale) == (1.0, 4.0)


def test_a_method_that_starts_from_pretrained_values_is_fitted_to_the_change_of_them():
    def make(out_features, in_features):
        return DoRA(out_features, in_features, rank=10, alpha=10)

    settings = FitSettings(400, 0.05, "cosine", 0.0, 1.0, True)

    assert (fitted(make, settings=settings) - TARGET).norm() < 0.05 * TARGET.norm()


def test_a_loss_that_is_not_finite_is_reported_with_the_rate():
    settings = FitSettings(30, 1e30, "constant", 0.0, 1.0, True)

    with pytest.raises(FitDivergedError, match=r"the loss is (nan|inf) at step 29; lower fit.lr=1e\+30"):
        fitted(KRAdapter, settings=settings)
