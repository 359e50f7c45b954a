"""Adapter files: what is in them, and which are refused."""

import copy
import json
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kravl
from kravl.adapters.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.store import load_adapters, save_adapters
from kravl.errors import InputError

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


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (
            KRAdapter,
            TARGETS,
            "its method is kravl.adapters.lora.LoRA, the model's kravl.adapters.kra.KRAdapter",
        ),
        (
            partial(LoRA, rank=2, alpha=4),
            TARGETS,
            "its hyperparameters differ in 1: {'alpha': 2}, the model's {'alpha': 4}",
        ),
        (
            partial(LoRA, rank=2, alpha=2),
            ["head"],
            r"its sites differ in 2: {'blocks.0.attn.q': \[48, 48\], .*, the model's {'blocks.0.attn.q': None",
        ),
    ],
)
def test_a_file_of_other_adapters_is_refused(built_vit, saved, make, targets, message):
    other = inject(copy.deepcopy(built_vit), make, targets, unfreeze=["norm.*"])
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}

    with pytest.raises(InputError, match=message):
        load_adapters(other, saved)

    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_file_of_other_base_weights_is_refused_and_both_hashes_are_named(built_vit, adapters, saved):
    model = copy.deepcopy(built_vit)
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-6
    other = inject(model, partial(LoRA, rank=2, alpha=2), TARGETS, unfreeze=["norm.*"])

    with pytest.raises(InputError, match=f"base_sha256 is {adapters.base_sha256()}, the model's {other.base_sha256()}"):
        load_adapters(other, saved)


def test_a_file_without_our_metadata_is_refused(adapters, tmp_path):
    save_file({"head.a": torch.zeros(2, 48)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})

    with pytest.raises(InputError, match="its method is None"):
        load_adapters(adapters, tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a safetensors file at all", None])
def test_a_missing_or_foreign_file_is_refused_by_name(adapters, tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=r"broken\.safetensors' cannot be read as an adapter file"):
        load_adapters(adapters, path)


def test_every_truncation_is_refused(adapters, saved):
    whole = saved.read_bytes()

    for length in range(0, len(whole), 97):
        saved.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cannot be read as an adapter file"):
            load_adapters(adapters, saved)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(adapters, saved):
    whole = saved.read_bytes()
    before = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    refused = 0
    positions = range(0, len(whole), 23)

    for position in positions:
        content = bytearray(whole)
        content[position] ^= 1
        saved.write_bytes(content)
        try:
            load_adapters(adapters, saved)
        except InputError:
            refused += 1

    assert refused >= len(positions) - 1  # the version is not compared
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters.state_dict().items())
