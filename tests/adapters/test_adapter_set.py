"""The set of adapters: scaling, loading, order of calls, and what happens to the pretrained weights."""

import copy

import numpy as np
import pytest
import torch

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.runtime.errors import InputError

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained(vit, perturb):
    """A ViT with moved adapters on q, v and the MLP, and moved biases and head."""
    adapters = inject(vit, KRAdapter, ["blocks.*.attn.[qv]", "blocks.*.mlp.*"], unfreeze=["*.bias", "head.*"])
    perturb(adapters)
    return vit, adapters


def test_wrong_order_is_refused(trained):
    _, adapters = trained

    with pytest.raises(RuntimeError, match="the adapters are not merged"):
        adapters.unmerge()
    adapters.merge()
    with pytest.raises(RuntimeError, match="the adapters are merged"):
        adapters.merge()
    with pytest.raises(RuntimeError, match="the adapters are merged"), adapters.disable_adapters():
        pass
    with pytest.raises(RuntimeError, match="the adapters are merged"):
        adapters.load_state_dict(adapters.state_dict())
    assert adapters.merged


def test_nothing_can_be_used_after_merging_for_good(trained):
    _, adapters = trained
    adapters.merge_and_unload()

    for method in ("merge", "unmerge", "merge_and_unload", "state_dict", "base_sha256", "statistics"):
        with pytest.raises(RuntimeError, match="merged for good"):
            getattr(adapters, method)()


def test_merging_changes_neither_state_nor_spectra(trained):
    _, adapters = trained
    state = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    statistics, digest = adapters.statistics(), adapters.base_sha256()

    adapters.merge(alpha=0.5)

    assert all(torch.equal(tensor, state[name]) for name, tensor in adapters.state_dict().items())
    assert adapters.statistics() == statistics
    assert adapters.base_sha256() == digest


def test_given_updates_take_the_place_of_the_trained_ones_until_they_are_unmerged(trained):
    model, adapters = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters.merge()
    merged = model(IMAGES)
    adapters.unmerge()

    adapters.merge_updates(dict(adapters.deltas()))

    torch.testing.assert_close(model(IMAGES), merged, rtol=1e-4, atol=1e-5)  # the update is rounded on its own here
    adapters.unmerge()
    adapters.merge_updates({name: torch.zeros_like(delta) for name, delta in adapters.deltas()})
    assert not torch.allclose(model(IMAGES), merged)
    adapters.unmerge()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_updates_of_other_shapes_write_nothing(trained):
    _, adapters = trained
    updates = dict(adapters.deltas())
    first = next(iter(updates))

    for given in ({}, updates | {first: updates[first][:1]}):
        with pytest.raises(InputError, match=f"{first} is a matrix of .*, and its update is "):
            adapters.merge_updates(given)
    assert not adapters.merged


def test_the_state_of_a_merged_model_is_not_loaded_beside_live_adapters(trained):
    """The published layer forgets that it is merged and then applies its update twice."""
    model, adapters = trained
    adapters.merge()
    state = copy.deepcopy(model.state_dict())
    adapters.unmerge()

    with pytest.raises(RuntimeError, match="saved with adapters merged, but this model's are not merged"):
        model.load_state_dict(state)


def test_the_state_of_a_whole_model_loads_into_an_equal_one(trained, built_vit):
    model, _ = trained
    other = copy.deepcopy(built_vit)
    inject(other, KRAdapter, ["blocks.*.attn.[qv]", "blocks.*.mlp.*"])

    other.load_state_dict(model.state_dict())

    assert torch.equal(other(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.0.attn.q.u"), r"missing \['blocks.0.attn.q.u'\], unexpected \[\]"),
        (lambda state: state.update(other=torch.zeros(1)), r"missing \[\], unexpected \['other'\]"),
        (lambda state: state.update({"head.bias": torch.zeros(6)}), r"'head.bias' has shape \(6,\), but \(5,\) in the"),
    ],
)
def test_a_state_of_other_adapters_is_refused_and_changes_nothing(trained, change, message):
    model, adapters = trained
    before = model(IMAGES)
    state = {name: torch.zeros_like(tensor) for name, tensor in adapters.state_dict().items()}
    change(state)

    with pytest.raises(InputError, match=message):
        adapters.load_state_dict(state)

    assert torch.equal(model(IMAGES), before)


def test_the_state_is_live(trained):
    model, adapters = trained
    before = model(IMAGES)

    adapters.state_dict()["blocks.0.attn.q.u"].zero_()

    assert not torch.equal(model(IMAGES), before)
    assert not any(tensor.requires_grad for tensor in adapters.state_dict().values())


def test_statistics_equal_numpy_on_the_merged_difference(trained):
    model, adapters = trained
    site = "blocks.0.mlp.fc1"
    before = model.blocks[0].mlp.fc1._parameters["weight"].clone()
    statistics = adapters.statistics()[site]
    adapters.merge()

    difference = (model.blocks[0].mlp.fc1.weight - before).double().numpy()

    sigma = np.linalg.svd(difference, compute_uv=False)
    p = sigma / sigma.sum()
    assert statistics["norm"] == pytest.approx(np.linalg.norm(difference), rel=1e-5)
    assert statistics["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-5)
    assert statistics["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_the_base_hash_tells_weights_and_unfrozen_shapes_apart(built_vit):
    def digest(model, unfreeze=()):
        return inject(model, KRAdapter, ["blocks.*.mlp.*"], unfreeze).base_sha256()

    other = copy.deepcopy(built_vit)
    with torch.no_grad():
        other.blocks[1].mlp.fc2.weight[0, 0] += 1e-7
    unadapted = copy.deepcopy(built_vit)
    with torch.no_grad():
        unadapted.head.weight.add_(1.0)

    reference = digest(copy.deepcopy(built_vit))
    assert digest(copy.deepcopy(built_vit)) == digest(unadapted) == reference
    assert digest(other) != reference
    assert digest(copy.deepcopy(built_vit), ["norm.*"]) != reference


def test_parameters_are_ordered_by_site_and_then_by_unfrozen_name(trained):
    _, adapters = trained

    by_name = [*adapters.state_dict().values()]

    assert [p.data_ptr() for p in adapters.parameters()] == [tensor.data_ptr() for tensor in by_name]
