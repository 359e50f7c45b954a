"""Fixtures of the PEFT tests: every method, every kind of layer, small transformers models."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft_models import KINDS, gpt2, llama
from torch import nn

try:
    importlib.metadata.version("peft")
except importlib.metadata.PackageNotFoundError:
    collect_ignore_glob = ["test_[!n]*.py"]  # test_not_installed.py says so

METHODS = ("KRAdapter", "SinLoRA", "KronA", "KRALoRA")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The config class of each method."""
    import kravl.peft

    return getattr(kravl.peft, f"{request.param}Config")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[gpt2, llama], ids=["GPT-2", "Llama"])
def decoder(request: pytest.FixtureRequest) -> nn.Module:
    """A small random causal language model, in evaluation mode."""
    return request.param()
