"""Adapter files: what is in them, and which are refused."""

import json
from functools import partial

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

import kravl
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA

TARGETS = ["blocks.*.attn.q", "head"]


@pytest.fixture
def adapters(vit, perturb):
    adapters = inject(vit, partial(LoRA, rank=2, alpha=2), TARGETS, unfreeze=["norm.*"])
    perturb(adapters)
    return adapters


@pytest.fixture
def saved(adapters, tmp_path):
    path = tmp_path / "adapters.safetensors"
    save_adapters(adapters, path)
    return path


def read_record(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["kravl"])


def test_a_file_holds_what_trains_and_says_how_it_was_made(adapters, saved):
    record = read_record(saved)

    assert load_file(saved).keys() == adapters.state_dict().keys()
    assert record["method"] == "kravl.adapters.lora.LoRA"
    assert record["sites"]["head"] == [5, 48]
    assert record["hyperparameters"] == {
        "rank": 2,
        "alpha": 2,
        "rank_stabilised": False,
        "dropout": 0.0,
    }
    assert record["base_sha256"] == adapters.base_sha256()
    assert record["kravl_version"] == kravl.__version__


def test_frozen_random_bases_are_not_stored(vit, tmp_path):
    adapters = inject(vit, partial(RandLoRA, rank=4, alpha=8), ["blocks.*.mlp.*"])

    save_adapters(adapters, tmp_path / "a.safetensors")

    assert sum(tensor.numel() for tensor in load_file(tmp_path / "a.safetensors").values()) == adapters.num_trainable()


def test_a_merged_set_saves_and_loads_the_same_file(adapters, saved, tmp_path):
    adapters.merge(alpha=0.5)

    save_adapters(adapters, tmp_path / "merged.safetensors")

    assert (tmp_path / "merged.safetensors").read_bytes() == saved.read_bytes()
    with pytest.raises(RuntimeError, match="are merged"):
        load_adapters(adapters, saved)


def test_saving_replaces_the_old_file_and_leaves_nothing_else(adapters, saved):
    old = saved.read_bytes()
    adapters.state_dict()["head.a"].add_(1.0)

    save_adapters(adapters, saved)

    assert saved.read_bytes() != old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(adapters, saved):
    old = saved.read_bytes()
    folder = saved.parent / "is_a_folder"
    folder.mkdir()

    with pytest.raises(IsADirectoryError):
        save_adapters(adapters, folder)

    assert saved.read_bytes() == old
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name, folder.name]
