"""Weights on a hub: at hand, reachable, or one line that says what to pass instead."""

import socket

import pytest
from huggingface_hub import constants

from kravl.backbones.weights import sources
from kravl.backbones.weights.sources import require_hub_file, unreachable
from kravl.runtime.errors import InputError


def test_a_host_that_answers_is_reachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/path") is None


def test_a_host_that_does_not_exist_is_named():
    assert "no-such-host.invalid does not answer" in str(unreachable("https://no-such-host.invalid"))


def test_weights_that_are_neither_cached_nor_reachable_say_what_to_pass(monkeypatch):
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources.constants, "ENDPOINT", "http://no-such-host.invalid")
    with pytest.raises(InputError, match=r"not in the local cache .*no-such-host\.invalid.*pass backbone\.build"):
        require_hub_file("org/model", ["model.safetensors"], "weights 'x'")


def test_an_offline_setting_is_respected_without_asking(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        require_hub_file("org/model", ["model.safetensors"], "weights 'x'")


def test_cached_weights_need_no_network(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--model/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    refs = tmp_path / "models--org--model/refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))

    require_hub_file("org/model", ["model.safetensors"], "weights 'x'")
