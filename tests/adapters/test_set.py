"""The set of adapters: scaling, loading, order of calls, and what happens to the pretrained weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kravl.adapters.full import Full
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.errors import InputError

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained(vit, perturb):
    """A ViT with moved adapters on q, v and the MLP, and moved biases and head."""
    adapters = inject(vit, KRAdapter, ["blocks.*.attn.[qv]", "blocks.*.mlp.*"], unfreeze=["*.bias", "head.*"])
    perturb(adapters)
    return vit, adapters


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0, 1.5])
def test_merge_scales_updates_and_unfrozen_changes_by_alpha(vit, perturb, alpha):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"], unfreeze=["norm.*"])
    start = {name: parameter.clone() for name, parameter in vit.named_parameters()}
    perturb(adapters)
    end = {name: parameter.clone() for name, parameter in vit.named_parameters()}
    deltas = dict(adapters.deltas())

    adapters.merge(alpha)

    merged = dict(vit.named_parameters())
    for site, delta in deltas.items():
        torch.testing.assert_close(merged[f"{site}.weight"], start[f"{site}.weight"] + alpha * delta)
    for name in ("norm.weight", "norm.bias"):
        torch.testing.assert_close(merged[name], start[name] + alpha * (end[name] - start[name]))


def test_alpha_zero_is_the_pretrained_and_alpha_one_the_adapted_model_bit_for_bit(built_vit, trained):
    model, adapters = trained
    adapted = model(IMAGES)

    adapters.merge(alpha=0.0)
    at_zero = model(IMAGES)
    adapters.unmerge()
    adapters.merge(alpha=1.0)
    at_one = model(IMAGES)
    adapters.unmerge()

    assert torch.equal(at_zero, built_vit(IMAGES))
    assert torch.equal(at_one, adapted)
    assert torch.equal(model(IMAGES), adapted)


def test_the_pretrained_model_survives_a_diverged_adapter(built_vit, trained):
    model, adapters = trained
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.fill_(float("nan"))

    with adapters.disabled():
        assert torch.equal(model(IMAGES), built_vit(IMAGES))


def test_training_writes_no_pretrained_weight(trained):
    model, adapters = trained
    owned = {id(parameter) for parameter in adapters.parameters()}
    before = {name: p.clone() for name, p in model.named_parameters() if id(p) not in owned}
    optimiser = torch.optim.AdamW(adapters.parameters(), lr=0.1)

    for _ in range(3):
        optimiser.zero_grad()
        model(IMAGES).square().sum().backward()
        optimiser.step()

    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_disabled_restores_the_adapters_after_an_error(trained):
    model, adapters = trained
    adapted = model(IMAGES)

    with pytest.raises(KeyError), adapters.disabled():
        raise KeyError

    assert torch.equal(model(IMAGES), adapted)


def test_wrong_order_is_refused(trained):
    _, adapters = trained

    with pytest.raises(RuntimeError, match="the adapters are not merged"):
        adapters.unmerge()
    adapters.merge()
    with pytest.raises(RuntimeError, match="the adapters are merged"):
        adapters.merge()
    with pytest.raises(RuntimeError, match="the adapters are merged"), adapters.disabled():
        pass
    with pytest.raises(RuntimeError, match="the adapters are merged"):
        adapters.load_state_dict(adapters.state_dict())
    assert adapters.merged


def test_no_use_is_possible_after_bake(trained):
    _, adapters = trained
    adapters.bake()

    for use in (adapters.merge, adapters.unmerge, adapters.bake, adapters.state_dict, adapters.base_sha256):
        with pytest.raises(RuntimeError, match="baked"):
            use()
    with pytest.raises(RuntimeError, match="baked"):
        adapters.statistics()


def test_bake_keeps_the_alpha_that_is_merged(trained):
    model, adapters = trained
    adapters.merge(alpha=0.5)
    halfway = model(IMAGES)

    adapters.bake()

    assert torch.equal(model(IMAGES), halfway)


def test_state_and_spectra_do_not_change_by_merging(trained):
    _, adapters = trained
    state = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    statistics, digest = adapters.statistics(), adapters.base_sha256()

    adapters.merge(alpha=0.5)

    assert all(torch.equal(tensor, state[name]) for name, tensor in adapters.state_dict().items())
    assert adapters.statistics() == statistics
    assert adapters.base_sha256() == digest


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


def test_a_square_weight_is_merged_untransposed(perturb):
    """The published layer adds the transpose, which a square weight takes without a word."""
    model = nn.Sequential(nn.Linear(8, 8))
    adapters = inject(model, KRAdapter, ["0"])
    perturb(adapters)
    x = torch.randn(3, 8)
    adapted = model(x)
    ((_, delta),) = adapters.deltas()

    adapters.merge()

    assert not torch.allclose(delta, delta.T, atol=1e-3)
    torch.testing.assert_close(model(x), adapted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.0.attn.q.u"), r"missing \['blocks.0.attn.q.u'\], unexpected \[\]"),
        (lambda state: state.update(other=torch.zeros(1)), r"missing \[\], unexpected \['other'\]"),
        (lambda state: state.update({"head.bias": torch.zeros(6)}), r"'head.bias' has shape \(6,\), the model \(5,\)"),
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


def test_without_sites_the_set_still_merges_what_was_unfrozen(vit, built_vit, perturb):
    adapters = inject(vit, Full, [], unfreeze=["head.*"])
    perturb(adapters)
    probed = vit(IMAGES)

    with adapters.disabled():
        assert torch.equal(vit(IMAGES), built_vit(IMAGES))

    assert torch.equal(vit(IMAGES), probed)
    assert adapters.description()["method"] is None
    assert adapters.statistics() == {}


def test_parameters_are_ordered_by_site_and_then_by_unfrozen_name(trained):
    _, adapters = trained

    by_name = [*adapters.state_dict().values()]

    assert [p.data_ptr() for p in adapters.parameters()] == [tensor.data_ptr() for tensor in by_name]
