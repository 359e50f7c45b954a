"""What the configs of kravl's methods have in common, and how a method enters PEFT's dictionaries."""

import inspect
import logging
import math
import operator
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from packaging.version import InvalidVersion, Version
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

import kravl
from kravl.adapters.base import Adapter
from kravl.peft.model_card import complete_card
from kravl.peft.weighted_sum import WeightedSum
from kravl.runtime.errors import InputError

log = logging.getLogger(__name__)
LARGE = 2**20  # a side
COLLECTED = {
    **dict.fromkeys(("target_modules", "exclude_modules"), set),
    **dict.fromkeys(("modules_to_save", "layers_pattern", "layers_to_transform", "weights"), list),
}
Tuner = TypeVar("Tuner", bound=type[BaseTuner])


@dataclass
class AdapterConfig(PeftConfig):
    """Where the adapters of one method go. A subclass adds the hyper-parameters, named as the adapter's arguments.

    Args:
        target_modules: names or endings of modules, a regular expression, or "all-linear" (every linear layer but the
            output of a transformers model). None: PEFT's choice for LoRA, where it knows the architecture.
        exclude_modules: names, endings or a regular expression of modules to leave out.
        layers_to_transform: indices of the layers to adapt, of the list that ``layers_pattern`` names.
        layers_pattern: name of the list of layers, such as "layers" or "h".
        modules_to_save: modules that train and are saved as a whole, such as a new classification head.
        fan_in_fan_out: kept for PEFT's sake; the layer's type says how it stores its weight.
        init_weights: False starts from a random update instead of zero, for tests.
        adapt_out_proj: whether a targeted nn.MultiheadAttention has its output projection adapted besides the packed
            queries, keys and values.
        weights: one weight for each term, of an adapter that `AdapterModel.add_weighted_adapter` made.
        kravl_version: the release that wrote the file.

    Raises:
        InputError: a value is out of its range, or PEFT has another method of this name.
    """

    adapter_class: ClassVar[type[Adapter]]
    method: ClassVar[Enum]  # its value is PEFT's name of the method

    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    fan_in_fan_out: bool = False
    init_weights: bool = True
    adapt_out_proj: bool = True
    weights: list[float] | None = None
    kravl_version: str = field(default=kravl.__version__)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.method
        self._collect()
        for name in ("target_modules", "exclude_modules"):
            _check_names(name, getattr(self, name))
        registered = PEFT_TYPE_TO_CONFIG_MAPPING.get(self.method)
        if registered is None or not isinstance(self, registered):
            name, version = self.method.value, self.peft_version
            raise InputError(f"peft {version} has a method {name} of its own, which kravl does not replace: use peft's")
        if not isinstance(self.init_weights, bool):
            raise InputError(f"init_weights must be True or False, not {self.init_weights!r}")
        self._check_layers()
        self._check_values()
        self._warn_if_later()

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        complete_card(Path(save_directory), self.method.value)

    def hyperparameters(self) -> dict[str, Any]:
        """The arguments of the adapter's ``__init__`` after the two sizes."""
        names = [
            n for n in inspect.signature(self.adapter_class).parameters if n not in ("out_features", "in_features")
        ]
        return {name: getattr(self, name) for name in names}

    @property
    def terms(self) -> int:
        """How many updates the adapter of one weight adds up."""
        return len(self.weights or [1.0])

    def new_adapter(self, out_features: int, in_features: int) -> Adapter:
        """An adapter for a matrix (out, in); a sum of them where ``weights`` are given."""
        terms = [self.adapter_class(out_features, in_features, **self.hyperparameters()) for _ in range(self.terms)]
        if not self.init_weights:
            for term in terms:
                _draw_zeros(term)
        return terms[0] if self.weights is None else WeightedSum(terms, self.weights)

    def _collect(self) -> None:
        """Make any collection, such as OmegaConf's list, a range or an array, the one that PEFT compares and writes."""
        for name, kind in COLLECTED.items():
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) and _is_counted(value):
                setattr(self, name, kind(value))

    def _check_layers(self) -> None:
        """What chooses layers and whole modules."""
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise InputError(f"{name} needs target_modules as a list, not {self.target_modules!r}")
        if self.layers_pattern and self.layers_to_transform is None:
            raise InputError(f"layers_pattern {self.layers_pattern!r} needs layers_to_transform, the layers' indices")
        if isinstance(self.modules_to_save, str):
            raise InputError(f"modules_to_save must be a list of names, not {self.modules_to_save!r}")
        _check_names("modules_to_save", self.modules_to_save)
        _check_names("layers_pattern", self.layers_pattern)
        chosen = self.layers_to_transform
        if isinstance(chosen, list):
            self.layers_to_transform = [_index(layer) for layer in chosen]
        elif chosen is not None:
            self.layers_to_transform = _index(chosen)

    def _check_values(self) -> None:
        """Types, and the adapter's own checks on a matrix as large as any, so that nothing is changed before them."""
        types = {f.name: f.type for f in fields(self)}
        for name, value in self.hyperparameters().items():
            if not isinstance(value, int | float if types[name] is float else types[name]) or isinstance(value, bool):  # type: ignore[arg-type]
                raise InputError(f"{name} must be {_readable(types[name])}, not {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} must be a finite number, not {value}")
        with torch.device("meta"):
            self.adapter_class(LARGE, LARGE, **self.hyperparameters())
        if self.weights is not None and not (self.weights and all(is_finite(w) for w in self.weights)):
            raise InputError(f"weights must be a list of finite numbers, not {self.weights!r}")

    def _warn_if_later(self) -> None:
        try:
            later = Version(self.kravl_version) > Version(kravl.__version__)
        except InvalidVersion as error:
            raise InputError(f"kravl_version {self.kravl_version!r} is not a version") from error
        if later:
            warnings.warn(
                f"the adapter was saved by kravl {self.kravl_version}, this is {kravl.__version__}: settings that are "
                "new there are ignored, and its update may be another one; pip install -U kravl",
                stacklevel=4,
            )


def register(tuner: Tuner) -> Tuner:
    """Enter a tuner class and its ``config_class`` in PEFT's dictionaries, unless PEFT has a method of that name."""
    method = tuner.config_class.method
    present = PEFT_TYPE_TO_CONFIG_MAPPING.get(method)
    if present is not None and present is not tuner.config_class:
        log.warning("PEFT has a method %s of its own (%s); kravl's is not added", method.value, present.__module__)
        return tuner
    assert tuner.prefix == f"{method.value.lower()}_", "transformers derives the prefix from the name"
    PEFT_TYPE_TO_CONFIG_MAPPING[method] = tuner.config_class
    PEFT_TYPE_TO_TUNER_MAPPING[method] = tuner
    PEFT_TYPE_TO_PREFIX_MAPPING[method] = tuner.prefix
    return tuner


def _draw_zeros(adapter: Adapter) -> None:
    """Draw each factor that is zero at the start, so that the update is not."""
    for parameter in adapter.parameters():
        if not parameter.is_meta and not parameter.any():
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))


def _check_names(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is None, names, or one regular expression."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise InputError(
                f"{name} {value!r} is no regular expression ({error}): a pattern such as '.*q_proj', or a list of names"
            ) from error
    elif value is not None and not (
        isinstance(value, list | tuple | set) and all(isinstance(entry, str) and entry for entry in value)
    ):
        raise InputError(f"{name} must be names or one regular expression, not {value!r}")


def _is_counted(value: Iterable[Any]) -> bool:
    """Whether it has entries, unlike an array that is one number."""
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _index(layer: Any) -> int:
    """``layer`` as an int, be it one of NumPy or torch."""
    try:
        if isinstance(layer, bool) or getattr(layer, "dtype", None) is torch.bool:
            raise TypeError
        return operator.index(layer)
    except TypeError:
        raise InputError(f"layers_to_transform must be whole numbers, not {layer!r}") from None


def is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _readable(legal: object) -> str:
    return {float: "a number", int: "a whole number"}.get(legal, str(legal))  # type: ignore[call-overload]
