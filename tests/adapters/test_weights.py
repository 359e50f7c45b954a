"""What merging writes to the weights, for every alpha, and that it can be undone."""

import pytest
import torch
from torch import nn

from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter

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

    with adapters.disable_adapters():
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

    with pytest.raises(KeyError), adapters.disable_adapters():
        raise KeyError

    assert torch.equal(model(IMAGES), adapted)


def test_merging_for_good_keeps_a_merged_alpha(trained):
    model, adapters = trained
    adapters.merge(alpha=0.5)
    halfway = model(IMAGES)

    adapters.merge_and_unload()

    assert torch.equal(model(IMAGES), halfway)


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


def test_without_sites_the_set_still_merges_what_was_unfrozen(vit, built_vit, perturb):
    adapters = inject(vit, Full, [], unfreeze=["head.*"])
    perturb(adapters)
    probed = vit(IMAGES)

    with adapters.disable_adapters():
        assert torch.equal(vit(IMAGES), built_vit(IMAGES))

    assert torch.equal(vit(IMAGES), probed)
    assert adapters.description()["method"] is None
    assert adapters.statistics() == {}


def test_a_merge_that_fails_on_the_way_leaves_all_weights_as_they_were(vit, perturb, monkeypatch):
    adapters = inject(vit, KRAdapter, ["blocks.*.mlp.*"], unfreeze=["head.*"])
    perturb(adapters)
    before = {name: parameter.clone() for name, parameter in vit.named_parameters()}
    probed = vit(IMAGES)
    last = list(adapters.adapters.values())[-1]

    def out_of_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(last, "adapted", out_of_memory)
        adapters.merge(0.5)

    assert all(torch.equal(parameter, before[name]) for name, parameter in vit.named_parameters())
    assert torch.equal(vit(IMAGES), probed)
    adapters.merge()
