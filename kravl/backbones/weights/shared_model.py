"""A pretrained model that runs of one worker load once: each gets a copy, and random numbers as loading leaves them."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

from kravl.backbones.weights.sources import WeightFile
from kravl.runtime.shared import Key, file_state, shared

M = TypeVar("M", bound=tuple[object, ...])  # the model first


def model_key(files: Iterable[WeightFile], *settings: str) -> Key | None:
    """By what a model is shared; None where a file of its weights is still to be downloaded.

    A model is initialised before its weights are loaded, which uses up random numbers and fills what they lack.
    """
    states = [file.path and file_state(file.path) for file in files]
    if None in states:
        return None
    random_numbers = torch.get_rng_state().numpy().tobytes()
    return ("model", *settings, *states, random_numbers, torch.get_default_dtype())


def shared_model(key: Key | None, load: Callable[[], M]) -> M:
    """What ``load`` gives, or a copy of what it gave for an equal ``key``."""
    loaded, random_numbers = shared(key, lambda: (load(), torch.get_rng_state()), _num_bytes, deepcopy)
    torch.set_rng_state(random_numbers)
    return loaded


def _num_bytes(kept: tuple[M, torch.Tensor]) -> int:
    model = kept[0][0]
    assert isinstance(model, nn.Module)
    return sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
