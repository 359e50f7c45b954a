"""The quantities of ΔW relative to W, against decompositions by numpy and updates whose answer is known."""

import copy

import numpy as np
import pytest
import torch

from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.update_spectra import TOP, Diagnosis
from kravl.runtime.errors import InputError

SITE = "blocks.0.mlp.fc1"


def full(vit, delta):
    """A diagnosis of one site whose update is ``delta`` (192, 48)."""
    adapters = inject(vit, Full, [SITE])
    adapters.adapters[SITE].delta.data.copy_(delta)
    return adapters, vit.blocks[0].mlp.fc1._parameters["weight"].detach()


@pytest.mark.parametrize("precision", ["fast", "exact"])
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_quantities_equal_those_of_numpy(vit, precision, size):
    noise = torch.randn(192, 48, generator=torch.Generator().manual_seed(0))
    delta = size * noise * 0.8 ** torch.arange(48)
    adapters, weight = full(vit, delta)

    quantities = Diagnosis(adapters, precision).quantities()[SITE]

    u, s, vh = np.linalg.svd(delta.double().numpy(), full_matrices=False)
    u0, _, vh0 = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    p = s / s.sum()
    overlap = 0.5 * (np.square(u[:, :TOP].T @ u0[:, :TOP]).sum() + np.square(vh[:TOP] @ vh0[:TOP].T).sum()) / TOP
    cosine = (delta * weight).sum() / delta.norm() / weight.norm()
    assert quantities["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=2e-3)
    assert quantities["norm"] == pytest.approx(delta.norm().item(), rel=1e-5)
    assert quantities["spectral_norm"] == pytest.approx(s[0], rel=1e-5)
    assert quantities["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-5)
    assert quantities["cosine"] == pytest.approx(cosine.item(), abs=1e-6)
    assert quantities["overlap"] == pytest.approx(overlap, abs=0.02 if precision == "fast" else 1e-6)


@pytest.mark.parametrize("precision", ["fast", "exact"])
def test_more_of_the_same_weight_has_its_directions_and_no_intruder(vit, precision):
    adapters, weight = full(vit, torch.zeros(192, 48))
    adapters.adapters[SITE].delta.data.copy_(0.5 * weight)

    quantities = Diagnosis(adapters, precision).quantities()[SITE]

    assert quantities["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert quantities["overlap"] == pytest.approx(1.0, abs=1e-3)
    assert quantities.get("intruders", 0.0) == 0.0


def test_a_strong_direction_that_the_weight_lacks_is_one_intruder(vit):
    adapters, weight = full(vit, torch.zeros(192, 48))
    left = torch.linalg.svd(weight)[0][:, 100:101]  # orthogonal to every singular vector of W
    adapters.adapters[SITE].delta.data.copy_(100 * left @ torch.ones(1, 48))

    assert Diagnosis(adapters, "exact").quantities()[SITE]["intruders"] == 1.0


@pytest.mark.parametrize("precision", ["fast", "exact"])
def test_an_untrained_update_has_no_direction(vit, precision):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"])

    for values in Diagnosis(adapters, precision).quantities().values():
        assert set(values.values()) == {0.0}


def test_measuring_leaves_random_numbers_weights_and_updates_alone(vit, perturb):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"])
    perturb(adapters)
    before = copy.deepcopy(vit.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    diagnosis = Diagnosis(adapters)

    first, again = diagnosis.quantities(), diagnosis.quantities()

    assert torch.equal(torch.rand(1), expected)
    assert first == again
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(before[k])) for k, value in vit.state_dict().items())


def test_singular_values_are_those_of_the_update(vit, perturb):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"])
    perturb(adapters)

    fast, exact = (Diagnosis(adapters, precision).singular_values() for precision in ("fast", "exact"))

    for site, delta in adapters.deltas():
        torch.testing.assert_close(exact[site], torch.linalg.svdvals(delta.double()))
        torch.testing.assert_close(fast[site], exact[site], rtol=1e-6, atol=1e-9)


def test_an_unknown_precision_names_the_nearest(vit):
    with pytest.raises(InputError, match="unknown spectrum 'exac': did you mean 'exact'"):
        Diagnosis(inject(vit, KRAdapter, [SITE]), "exac")
