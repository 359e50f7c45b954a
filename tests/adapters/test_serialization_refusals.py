"""Adapter files that do not fit or are not whole: each is refused, named, and changes nothing."""

import copy
import json
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kravl.adapters.injection.adapter_set import sha256
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.runtime.errors import InputError

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


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (
            KRAdapter,
            TARGETS,
            "its method is LoRA, the model's is KRAdapter",
        ),
        (
            partial(LoRA, rank=2, alpha=4),
            TARGETS,
            "its hyperparameters differ in 1: {'alpha': 2}, the model's are {'alpha': 4}",
        ),
        (
            partial(LoRA, rank=2, alpha=2),
            ["head"],
            r"its sites differ in 2: {'blocks.0.attn.q': \[48, 48\], .*, the model's are {'blocks.0.attn.q': None",
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

    message = f"base_sha256 is {adapters.base_sha256()}, the model's is {other.base_sha256()}"
    with pytest.raises(InputError, match=message):
        load_adapters(other, saved)


def test_a_model_with_the_adapters_merged_for_good_refuses_them_a_second_time(vit, adapters, saved):
    adapters.merge_and_unload()
    again = inject(vit, partial(LoRA, rank=2, alpha=2), TARGETS, unfreeze=["norm.*"])

    with pytest.raises(InputError, match="base_sha256"):
        load_adapters(again, saved)


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


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16],
    ids=lambda dtype: str(dtype).removeprefix("torch."),
)
def test_a_tensor_of_another_kind_is_refused_and_not_cast(adapters, saved, dtype):
    before = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    name = next(iter(before))
    rewrite(saved, {**before, name: before[name].to(dtype)})

    with pytest.raises(InputError, match=f"holds tensors of another kind: {name} is {str(dtype)[6:]}, not float32"):
        load_adapters(adapters, saved)

    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_tensor_of_another_precision_of_training_is_taken(adapters, saved, dtype):
    state = {name: tensor.to(dtype) for name, tensor in adapters.state_dict().items()}
    rewrite(saved, state)

    load_adapters(adapters, saved)

    assert all(torch.equal(tensor, state[name].float()) for name, tensor in adapters.state_dict().items())


def rewrite(path, tensors):
    """Other tensors under the description of the file, with their hash."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["kravl"])
    record["tensors_sha256"] = sha256(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"kravl": json.dumps(record)})
