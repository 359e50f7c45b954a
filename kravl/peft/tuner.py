"""The tuner model: puts adapters on a model's layers, merges, sums and mixes them, as PEFT expects it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, onload_layer
from peft.utils import get_quantization_kwargs, resolve_quantization_backend
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.error import NoMatchingPeftModuleError
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from kravl.peft.config import AdapterConfig, is_finite
from kravl.peft.layers.attention import AdaptedAttention
from kravl.peft.layers.conv import AdaptedConv
from kravl.peft.layers.embedding import AdaptedEmbedding
from kravl.peft.layers.layer import BASE, AdapterLayer
from kravl.peft.layers.linear import AdaptedLinear, OutProjectionLinear
from kravl.peft.targets import require_possible_name, suggestion, warn_of_shared, warn_of_unmatched
from kravl.peft.weighted_adapter import copy_terms, sum_of
from kravl.runtime.errors import InputError, some_of, unknown

KINDS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Callable[..., AdapterLayer]], ...] = (
    (nn.MultiheadAttention, AdaptedAttention),
    (NonDynamicallyQuantizableLinear, OutProjectionLinear),
    ((nn.Linear, Conv1D), AdaptedLinear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), AdaptedConv),
    (nn.Embedding, AdaptedEmbedding),
)
QUANTISED = {"linear": AdaptedLinear, "embedding": AdaptedEmbedding, "conv2d": AdaptedConv}
LOSS = 0.1  # share of an update's norm whose loss in a merge is told


class AdapterModel(BaseTuner):
    """Base of the tuner models of kravl's methods."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # what BaseTuner has; nn.Module's says Tensor or Module

    tuner_layer_cls = AdapterLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    config_class: ClassVar[type[AdapterConfig]]

    def _create_and_replace(  # noqa: PLR0913 (PEFT's signature)
        self,
        config: AdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, AdapterLayer) and target.prefix == self.prefix:
            target.update_layer(adapter_name, config)
            return
        layer: Any = self._new_layer(config, target, current_key)
        layer._active_adapter = adapter_name
        layer.update_layer(adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _new_layer(self, config: AdapterConfig, target: nn.Module, name: str) -> AdapterLayer:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        quantization = get_quantization_kwargs(self.model)
        if (backend := resolve_quantization_backend(base, **quantization)) is not None:
            return QUANTISED[backend.layer_type](target, self.prefix, **quantization)
        for kinds, layer in KINDS:
            if isinstance(base, kinds):
                choice = {"adapt_out_proj": config.adapt_out_proj} if layer is AdaptedAttention else {}
                return layer(target, self.prefix, **choice)
        raise InputError(
            f"target module {name!r} is a {type(base).__name__}; {config.method.value} adapts nn.Linear, Conv1D,"
            " nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.MultiheadAttention and quantised linear layers"
        )

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        require_possible_name(adapter_name)
        config = self.peft_config[adapter_name]
        if config.fan_in_fan_out:
            warnings.warn("fan_in_fan_out is not needed: a layer's type says how it stores its weight", stacklevel=2)
        names = [name for name, _ in model.named_modules()]
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except NoMatchingPeftModuleError as error:
            raise NoMatchingPeftModuleError(f"{error}{suggestion(config, names)}") from None
        warn_of_unmatched(config, names)
        if config.weights is None:
            self._warn_of_large(adapter_name)

    def _warn_of_large(self, adapter_name: str) -> None:
        large = [
            name
            for name, layer in self._layers()
            if adapter_name in layer.factors
            and sum(p.numel() for p in layer.factors[adapter_name].parameters())
            > sum(out * columns for out, columns in layer.sizes().values())
        ]
        if large:
            shown = some_of(large, 5)
            warnings.warn(f"adapters with more parameters than the weight that they adapt: {shown}", stacklevel=3)

    def _layers(self) -> Iterator[tuple[str, AdapterLayer]]:
        for name, module in self.model.named_modules():
            if isinstance(module, AdapterLayer) and module.prefix == self.prefix:
                yield name, module

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        container = f"{cls.prefix}factors."
        before, found, after = key.rpartition(f"{container}{adapter_name}.")
        return before + container + after if found else super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: AdapterConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        left = sorted({k.partition(f".{cls.prefix}factors.")[0] for k in cls.without_place(state_dict, remapped)})
        if left:  # PEFT drops them without a word
            warnings.warn(f"the adapter belongs to another base: the model has no {some_of(left, 3)}", stacklevel=2)
        return remapped

    @classmethod
    def without_place(cls, state_dict: Mapping[str, Tensor], remapped: Mapping[str, Tensor]) -> list[str]:
        """Factors of a file that keep their name there when PEFT gives the ``remapped`` ones those of the model."""
        return [key for key in state_dict if f".{cls.prefix}factors." in key and key in remapped]

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(new_module, nn.MultiheadAttention):  # PEFT's would look for its ``weight``
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        self._check_merge(adapter_names, safe_merge)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)
        _warn_of_loss([layer for _, layer in self._layers()])

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        layers = [layer for _, layer in self._layers()]
        if merge:
            self._check_merge(adapter_names, safe_merge)
        model = super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)
        if merge:
            _warn_of_loss(layers)
        return model

    def _check_merge(self, adapter_names: list[str] | None, safe_merge: bool) -> None:
        """What is wrong with a merge, before a layer of the model is changed."""
        for name in adapter_names or []:
            self._config_of(name)
        if safe_merge:
            for _, layer in self._layers():
                with onload_layer(layer):
                    layer.require_finite(adapter_names)
        warn_of_shared(self.model, [name for name, layer in self._layers() if not layer.merged])

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hand ``adapter_names``, one per sample, to the layers; PeftModel enters this around each forward pass."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise InputError("adapter_names cannot be used in training mode; call model.eval() first")
        if isinstance(names, str):
            raise InputError(f"adapter_names must be a list with a name for each sample, not {names!r}")
        known = {name for _, layer in self._layers() for name in layer.factors}
        for name in sorted(set(names) - {BASE} - known):
            raise unknown("adapter in adapter_names", name, {*known, BASE})
        beams = kwargs.get("num_beams") or 1
        encoder = _encoder_of(self.model)
        of_encoder = set() if encoder is None else set(encoder.modules())
        handles = []
        for module in self.modules():
            if isinstance(module, AdapterLayer | AuxiliaryTrainingWrapper):
                # beam search repeats each sample, behind the encoder
                repeated = list(names) if module in of_encoder else [name for name in names for _ in range(beams)]
                hook = partial(_add_names, names=repeated)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str = "cat"
    ) -> None:
        """Add an adapter whose update is exactly the sum of ``weights`` times those of ``adapters``; it is frozen.

        It holds the factors of each, as LoRA's "cat" does: a sum of Khatri-Rao products is none, and sums of factors
        are another update. A layer that one of the adapters leaves alone gets nothing from it.

        Raises:
            InputError: an unknown adapter or ``combination_type``, adapters of other hyper-parameters or with modules
                of their own, or a name that is taken.
        """
        configs = [self._config_of(name) for name in adapters]
        if combination_type != "cat":
            raise unknown("combination_type", combination_type, ["cat"])
        if len(adapters) != len(weights) or not adapters:
            raise InputError(f"{len(adapters)} adapters and {len(weights)} weights: one weight for each is needed")
        if not all(map(is_finite, weights)):
            raise InputError(f"weights must be finite numbers, not {weights!r}")
        if adapter_name in self.peft_config:
            raise InputError(f"there is an adapter {adapter_name!r} already")
        config = sum_of(configs, weights)
        require_possible_name(adapter_name)
        self.peft_config[adapter_name] = config
        self.inject_adapter(self.model, adapter_name)
        for _, layer in self._layers():
            if adapter_name in layer.factors:
                copy_terms(layer, adapters, [config.terms for config in configs], adapter_name)
        self.set_requires_grad(adapter_name, requires_grad=False)

    def _config_of(self, name: str) -> AdapterConfig:
        if name not in self.peft_config:
            raise unknown("adapter", name, self.peft_config)
        return self.peft_config[name]


def _add_names(module: nn.Module, args: Any, kwargs: dict[str, Any], names: list[str]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}


def _encoder_of(model: Any) -> nn.Module | None:
    encoder = model.get_encoder() if hasattr(model, "get_encoder") else None
    return None if encoder is model else encoder


def _warn_of_loss(layers: Sequence[AdapterLayer]) -> None:
    counted = [layer.lost for layer in layers if layer.lost is not None]
    error, whole = (sum(pair) for pair in zip(*counted, strict=True)) if counted else (0.0, 0.0)
    if whole and (share := (error / whole) ** 0.5) > LOSS:
        first = next(layer for layer in layers if layer.lost is not None)
        dtype = str(next(first.base_layer.parameters()).dtype).removeprefix("torch.")
        kind = first.quantization_backend.backend_name if first.quantization_backend else dtype
        warnings.warn(
            f"merging into {kind} weights lost {share:.0%} of the update's norm in rounding; merge into a model in "
            "float32, or keep the adapter apart",
            stacklevel=3,
        )
