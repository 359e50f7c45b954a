"""A frozen layer with adapters beside it: what all kinds of layers have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import resolve_quantization_backend
from torch import Tensor, nn

from kravl.adapters.base import Adapter, without_autocast
from kravl.peft.config import AdapterConfig
from kravl.runtime.errors import InputError

BASE = "__base__"  # PEFT's name for "no adapter" in a mixed batch
Sizes = Mapping[str, tuple[int, int]]  # weight of the base layer, such as "out_proj.weight" -> (out, in)


class AdapterLayer(nn.Module, BaseTunerLayer):
    """Base layer plus the updates of the active adapters.

    ``factors`` (in state dicts ``<prefix>factors``) holds an `Adapter` under each adapter's name, or an nn.ModuleDict
    of them for the weights of attention. Merging adds ΔW to the base weights; unmerging restores them bit for bit from
    a copy on the CPU, but for quantised weights, where ΔW is subtracted and the weight quantised again.

    Raises:
        InputError: the layer has no sizes, or sizes that no adapter fits.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # what BaseTunerLayer has; nn.Module's says Tensor or Module

    def __init__(self, base_layer: nn.Module, prefix: str, **quantization: Any) -> None:
        super().__init__()
        self.base_layer: Any = base_layer
        self.prefix = prefix
        self.adapter_layer_names = (f"{prefix}factors",)
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.quantization_backend = resolve_quantization_backend(self.get_base_layer(), **quantization)
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.lost: tuple[float, float] | None = None  # squared norms of what merging lost of an update, and of that
        self._before: dict[str, Tensor] = {}  # weights that `merge` replaced
        setattr(self, f"{prefix}factors", nn.ModuleDict())

    @abstractmethod
    def sizes(self) -> Sizes:
        """(out, in) of each adapted weight of the base layer, by its name there."""

    @abstractmethod
    def stored(self, delta: Tensor, name: str) -> Tensor:
        """The update (out, in) in the shape and order in which the base layer stores the weight ``name``."""

    @abstractmethod
    def added(self, adapter: Any, x: Tensor, y: Tensor) -> Tensor:
        """What an entry of ``factors`` adds to the output ``y`` for the input ``x``, in the dtype of ``y``."""

    @property
    def factors(self) -> nn.ModuleDict:
        return getattr(self, f"{self.prefix}factors")

    def update_layer(self, adapter_name: str, config: AdapterConfig) -> None:
        """Add an adapter of that name, on the base layer's device and at first in its dtype, as PEFT does."""
        for name, (out_features, in_features) in self.sizes().items():
            if not out_features or not in_features:
                kind = type(self.get_base_layer()).__name__
                raise InputError(f"{kind}.{name} is {out_features} x {in_features}: there is nothing to adapt")
        adapters = {name: config.new_adapter(*size) for name, size in self.sizes().items()}
        parts = {name.removesuffix(".weight").removesuffix("_weight"): a for name, a in adapters.items()}
        self.factors[adapter_name] = parts["weight"] if "weight" in parts else nn.ModuleDict(parts)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def adapters(self, adapter_name: str) -> dict[str, Adapter]:
        """The adapter of each weight, by the names of `sizes`."""
        entry = self.factors[adapter_name]
        parts: list[Any] = list(entry.values()) if isinstance(entry, nn.ModuleDict) else [entry]
        return dict(zip(self.sizes(), parts, strict=True))

    def active(self) -> list[Any]:
        """The entries of ``factors`` that are active; none while merged or disabled."""
        if self.merged or self.disable_adapters:
            return []
        return [self.factors[name] for name in self.active_adapters if name in self.factors]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        names = kwargs.pop("adapter_names", None)
        if self.disable_adapters and self.merged:
            self.unmerge()
        if names is not None and not self.disable_adapters:
            return self._mixed(x, names, *args, **kwargs)
        active = self.active()
        if not active:
            return self.base_layer(x, *args, **kwargs)
        return self.adapted(x, active, *args, **kwargs)

    def adapted(self, x: Tensor, active: Sequence[Any], *args: Any, **kwargs: Any) -> Tensor:
        """The output with the updates of all ``active`` entries."""
        y = self._base(x, *args, **kwargs)
        for adapter in active:
            y = y + self.added(adapter, x, y)
        return y

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = self.base_layer(x, *args, **kwargs)
        return y if self.quantization_backend is None else self.quantization_backend.maybe_clone_base_result(y)

    def _mixed(self, x: Tensor, names: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        """Each sample of the batch with the adapter that ``names`` gives it, or none for ``"__base__"``."""
        if len(names) != len(x):
            raise InputError(f"adapter_names has {len(names)} entries for a batch of {len(x)}")
        if self.merged:
            raise InputError("adapter_names cannot be used while adapters are merged; call unmerge_adapter() first")
        y = self._base(x, *args, **kwargs)
        for name in sorted(set(names) & set(self.factors)):
            rows = torch.tensor([i for i, other in enumerate(names) if other == name], device=y.device)
            y = y.index_add(0, rows, self.added(self.factors[name], x[rows.to(x.device)], y[rows]))
        return y

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:
        """The scaled update of the layer's weight in its stored order; of the first weight, where it has several."""
        return next(iter(self.deltas([adapter]).values()))

    @torch.no_grad()
    def deltas(self, adapter_names: Sequence[str]) -> dict[str, Tensor]:
        """The summed updates of the adapters for each weight, in the order in which it is stored."""
        deltas: dict[str, Tensor] = {}
        for adapter_name in adapter_names:
            for name, adapter in self.adapters(adapter_name).items():
                with without_autocast(next(adapter.parameters()).device.type):
                    delta = self.stored(adapter.scale * adapter.delta_weight(), name)
                deltas[name] = deltas[name] + delta if name in deltas else delta
        return deltas

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of the active adapters, or of ``adapter_names``, to the base weights.

        The sum is computed in the wider dtype and rounded once. Weights in half precision lose a small update: `lost`
        says how much of it.

        Raises:
            ValueError: with ``safe_merge``, a merged weight is not finite; nothing is changed.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.factors]
        if not names:
            return
        deltas = self.deltas(names)
        merged = self._added_up(deltas)
        if safe_merge:
            _require_finite(merged, names)
        if not self.merged and self.quantization_backend is None:
            self._before = {name: self._weight(name).to("cpu", copy=True) for name in deltas}
        self.lost = None
        for name, delta in deltas.items():
            self._write_merged(name, merged[name], delta)
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def require_finite(self, adapter_names: list[str] | None = None) -> None:
        """Raise ValueError where `merge` with ``safe_merge`` would; nothing is changed."""
        names = [name for name in adapter_names or self.active_adapters if name in self.factors]
        _require_finite(self._added_up(self.deltas(names)), names)

    def _added_up(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {name: self._weight(name) for name in deltas}
        return {name: (weight + deltas[name].to(weight.device)).to(weight.dtype) for name, weight in weights.items()}

    def _write_merged(self, name: str, merged: Tensor, delta: Tensor) -> None:
        """Write a merged weight, and count in `lost` what rounding takes of ``delta`` where that is not little."""
        coarse = self.quantization_backend is not None or self._weight(name).dtype.itemsize < delta.dtype.itemsize
        before = self._weight(name).clone() if coarse else None
        self._write(name, merged)
        if before is not None:
            error = (self._weight(name).to(delta) - before.to(delta) - delta).square().sum().item()
            lost, whole = self.lost or (0.0, 0.0)
            self.lost = lost + error, whole + delta.square().sum().item()

    @torch.no_grad()
    def unmerge(self) -> None:
        """Undo every merge."""
        if self.quantization_backend is None:
            for name, weight in self._before.items():
                self._write(name, weight)
        else:
            for name, delta in self.deltas(self.merged_adapters).items() if self.merged else ():
                self._write(name, self._weight(name) - delta)
        self._before = {}
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return False

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, parameter in self.factors.named_parameters(prefix=f"{prefix}{self.prefix}factors"):
            saved = state_dict.get(name)
            if saved is not None and saved.shape != parameter.shape:
                here = ", ".join(f"{out} x {columns}" for out, columns in self.sizes().values())
                raise InputError(
                    f"the adapter belongs to another base or has other settings: {name} is {tuple(saved.shape)} in the "
                    f"file and {tuple(parameter.shape)} here, on a weight of {here}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _weight(self, name: str) -> Tensor:
        if self.quantization_backend is not None:
            return self.get_base_weight()
        return attrgetter(name)(self.get_base_layer()).data

    def _write(self, name: str, weight: Tensor) -> None:
        if self.quantization_backend is not None:
            self.set_base_weight(weight.to(self._weight(name).dtype))
        else:
            attrgetter(name)(self.get_base_layer()).data.copy_(weight)

    def __repr__(self) -> str:
        return self.prefix.removesuffix("_") + "." + super().__repr__()


def _require_finite(merged: Mapping[str, Tensor], names: Sequence[str]) -> None:
    if not all(weight.isfinite().all() for weight in merged.values()):
        raise ValueError(f"NaNs detected in the merged weights. The adapter {', '.join(names)} seems to be broken")
