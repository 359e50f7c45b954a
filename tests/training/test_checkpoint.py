"""Checkpoints without pickle: whole or not at all, and never another tensor than the one that was saved."""

import random
from pathlib import Path

import pytest
import torch
from full_disk import full_disk

from kravl.runtime.errors import InputError
from kravl.training.checkpoint import CheckpointError, SafeCheckpointIO, damage, latest

STATE = {
    "epoch": 3,
    "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2, dtype=torch.int64)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0), "betas": (0.9, 0.999)}}, "param_groups": []}],
    "none": None,
    "nested": {"empty": {}, "text": "α", "flag": True, "float": 1e-7},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "step=5.ckpt"
    SafeCheckpointIO().save_checkpoint(STATE, path)
    return path


def assert_same(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_a_state_comes_back_with_its_types_its_keys_and_their_order(saved):
    assert_same(SafeCheckpointIO().load_checkpoint(saved), STATE)


def test_nothing_but_json_and_safetensors_is_written(saved):
    assert sorted(p.name for p in saved.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_every_single_bit_that_flips_is_noticed(saved):
    rng = random.Random(0)
    for file in sorted(saved.iterdir()):
        whole = file.read_bytes()
        for _ in range(40):
            place = rng.randrange(len(whole))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
            with pytest.raises(InputError, match="is damaged"):
                SafeCheckpointIO().load_checkpoint(saved)
        file.write_bytes(whole)
    assert damage(saved) is None


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
def test_a_truncated_or_missing_file_is_noticed(saved, name):
    (saved / name).write_bytes((saved / name).read_bytes()[:10])
    assert damage(saved)
    (saved / name).unlink()
    assert damage(saved)


def test_the_newest_whole_checkpoint_is_found_and_a_damaged_one_passed_over(tmp_path, caplog):
    io = SafeCheckpointIO()
    for step in (9, 10, 100):
        io.save_checkpoint(STATE | {"step": step}, tmp_path / f"step={step}.ckpt")
    (tmp_path / "step=100.ckpt/tensors.safetensors").write_bytes(b"")

    newest = latest(tmp_path)

    assert newest == tmp_path / "step=10.ckpt"
    assert "step=100.ckpt is damaged" in caplog.text


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / ".step=7.ckpt.123").mkdir()
    (tmp_path / ".step=7.ckpt.123/tensors.safetensors").write_bytes(b"half")

    assert latest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_yet_is_no_error(tmp_path):
    assert latest(tmp_path / "none") is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, saved):
    with full_disk(room=10_000), pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        SafeCheckpointIO().save_checkpoint({"large": torch.zeros(100_000)}, tmp_path / "step=6.ckpt")

    assert latest(tmp_path) == saved
    assert [p.name for p in tmp_path.iterdir()] == [saved.name]
