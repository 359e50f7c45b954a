"""Weighted sums of adapters: the config of the sum, and the factors of its terms."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kravl.peft.config import AdapterConfig
from kravl.peft.layers.layer import AdapterLayer
from kravl.peft.weighted_sum import WeightedSum
from kravl.runtime.errors import InputError

FREE = ("scale", "dropout", "init_a")  # hyper-parameters in which summed adapters may differ


def sum_of(configs: Sequence[AdapterConfig], weights: Sequence[float]) -> AdapterConfig:
    """The config of the sum of ``weights`` times the adapters of ``configs``: one weight for each term, scale included.

    Raises:
        InputError: they differ in a hyper-parameter that changes what the factors mean, or have modules of their own.
    """
    first, terms = configs[0], list[float]()
    for config, weight in zip(configs, weights, strict=True):
        if config.modules_to_save:
            raise InputError(f"an adapter with modules_to_save {config.modules_to_save} cannot be summed with others")
        for name in (*(name for name in config.hyperparameters() if name not in FREE), "adapt_out_proj"):
            if (value := getattr(config, name)) != getattr(first, name):
                raise InputError(f"adapters with {name} {getattr(first, name)!r} and {value!r} cannot be summed")
        terms += [weight * term * getattr(config, "scale", 1.0) for term in config.weights or [1.0]]
    targets = _union([config.target_modules for config in configs])
    scale: dict[str, Any] = {"scale": 1.0} if hasattr(first, "scale") else {}
    return replace(first, weights=terms, target_modules=targets, init_weights=True, **scale)


def _union(targets: Sequence[Any]) -> set[str] | str:
    if all(isinstance(target, set) for target in targets):
        return set[str]().union(*targets)
    return "|".join(f"(?:{target if isinstance(target, str) else _pattern(target)})" for target in targets)


def _pattern(names: set[str]) -> str:
    return rf"(?:.*\.)?(?:{'|'.join(re.escape(name) for name in sorted(names))})"


@torch.no_grad()
def copy_terms(layer: AdapterLayer, adapters: Sequence[str], counts: Sequence[int], adapter_name: str) -> None:
    """Copy the factors of ``adapters``, of ``counts`` terms each, to those of their sum.

    Terms of an adapter that the layer lacks keep their initial update of zero.
    """
    for weight, total in layer.adapters(adapter_name).items():
        assert isinstance(total, WeightedSum)
        targets = iter(total.terms)
        for name, count in zip(adapters, counts, strict=True):
            copies = [next(targets) for _ in range(count)]
            if name in layer.factors:
                source: nn.Module = layer.adapters(name)[weight]
                terms = source.terms if isinstance(source, WeightedSum) else [source]
                for copy, term in zip(copies, terms, strict=True):
                    copy.load_state_dict(term.state_dict())
