"""What every adapter must satisfy when it is stored, copied, described or baked in: each file in configs/adapter."""

import copy
import json
import pickle

import pytest
import torch

from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters


def test_a_saved_file_makes_a_fresh_model_the_same(make_adapter, case, perturb, tmp_path):
    fresh = copy.deepcopy(case.model)
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)

    save_adapters(adapters, tmp_path / "adapters.safetensors")
    loaded = inject(fresh, make_adapter, case.targets)
    load_adapters(loaded, tmp_path / "adapters.safetensors")

    assert torch.equal(case.run(fresh), case.run(case.model))
    assert list(loaded.state_dict()) == list(adapters.state_dict())


@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_the_state_holds_all_that_trains_and_nothing_else(make_adapter, case):
    adapters = inject(case.model, make_adapter, case.targets)

    state = adapters.state_dict()

    trainable = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in trainable) == adapters.num_trainable()
    assert {t.data_ptr() for t in state.values()} == {p.data_ptr() for p in trainable}


def test_bake_leaves_the_adapted_function_in_the_original_classes_and_keys(make_adapter, case, perturb):
    keys = list(case.model.state_dict())
    classes = [type(module) for module in case.model.modules()]
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    adapted = case.run(case.model)

    adapters.merge_and_unload()

    torch.testing.assert_close(case.run(case.model), adapted)
    assert list(case.model.state_dict()) == keys
    assert [type(module) for module in case.model.modules()] == classes


@pytest.mark.parametrize("case", ["clip"], indirect=True)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_compute_the_same_and_are_independent(make_adapter, case, perturb, duplicate):
    adapters = inject(case.model, make_adapter, case.targets)
    perturb(adapters)
    adapted = case.run(case.model)

    model, copied = duplicate((case.model, adapters))
    same = case.run(model)
    perturb(copied)

    assert torch.equal(same, adapted)
    assert not torch.equal(case.run(model), adapted)
    assert torch.equal(case.run(case.model), adapted)
    copied.merge_and_unload()
    assert list(model.state_dict()) == [key for key in case.model.state_dict() if ".adapters." not in f".{key}"]


@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_the_description_names_method_sites_and_hyperparameters(make_adapter, config, case):
    adapters = inject(case.model, make_adapter, case.targets)

    description = json.loads(json.dumps(adapters.description()))

    written = {key: value for key, value in config.items() if not key.startswith("_")}
    assert description["method"] == config["_target_"]
    assert description["hyperparameters"] == written
    assert description["sites"] == {name: list(delta.shape) for name, delta in adapters.deltas()}
    assert description["num_trainable"] == adapters.num_trainable()


def test_one_seed_makes_the_same_adapters(make_adapter, vit):
    other = copy.deepcopy(vit)

    torch.manual_seed(1)
    first = inject(vit, make_adapter, ["blocks.*.mlp.*"])
    torch.manual_seed(1)
    second = inject(other, make_adapter, ["blocks.*.mlp.*"])

    for a, b in zip(vit.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.base_sha256() == second.base_sha256()
