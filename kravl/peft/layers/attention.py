"""Adapted nn.MultiheadAttention, whose weights are read and never called."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from kravl.peft.config import AdapterConfig
from kravl.peft.layers.layer import AdapterLayer, Sizes
from kravl.peft.layers.linear import update_matrix
from kravl.runtime.errors import InputError


class AdaptedAttention(AdapterLayer):
    """The packed weight of queries, keys and values, (3 d, d), and the output projection, each with an adapter.

    The base layer runs with the adapted weights before its own, where FSDP puts the gathered ones as well:
    `torch.func.functional_call` would exchange the parameters behind those.

    Raises:
        InputError: keys or values have another size than queries, so that their weights are not packed.
    """

    def __init__(self, base_layer: nn.Module, prefix: str, adapt_out_proj: bool = True, **quantization: Any) -> None:
        if not isinstance(base_layer, nn.MultiheadAttention):
            raise InputError("an nn.MultiheadAttention cannot have adapters of two kinds; merge the first ones")
        if base_layer.in_proj_weight is None:
            raise InputError("an nn.MultiheadAttention with kdim or vdim of its own has no packed weight to adapt")
        super().__init__(base_layer, prefix, **quantization)
        self.adapt_out_proj = adapt_out_proj

    def sizes(self) -> Sizes:
        d = self.get_base_layer().embed_dim
        out_proj = {"out_proj.weight": (d, d)} if self.adapt_out_proj else {}
        return {"in_proj_weight": (3 * d, d), **out_proj}

    def stored(self, delta: Tensor, name: str) -> Tensor:
        return delta

    def update_layer(self, adapter_name: str, config: AdapterConfig) -> None:
        if config.adapt_out_proj != self.adapt_out_proj:
            raise InputError(f"adapt_out_proj must be {self.adapt_out_proj}, as in the adapters that are there already")
        super().update_layer(adapter_name, config)

    def adapted(self, x: Tensor, active: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        base = self.get_base_layer()
        weights: dict[str, Tensor] = {}
        for adapters in (self.adapters(name) for name in self.active_adapters if name in self.factors):
            for name, adapter in adapters.items():
                # read as attributes: FSDP keeps weights as plain tensors
                weights[name] = weights.get(name, attrgetter(name)(base)) + update_matrix(adapter)
        weights = {name: weight.to(attrgetter(name)(base).dtype) for name, weight in weights.items()}
        with _shadowed(base, weights):
            return base(x, *args, **kwargs)

    def added(self, adapter: Any, x: Tensor, y: Tensor) -> Tensor:
        raise InputError("nn.MultiheadAttention cannot have adapter_names: its samples share one packed weight")

    def _mixed(self, x: Tensor, names: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        return self.added(None, x, x)

    @property
    def batch_first(self) -> bool:
        return self.get_base_layer().batch_first

    @property
    def embed_dim(self) -> int:
        return self.get_base_layer().embed_dim

    @property
    def num_heads(self) -> int:
        return self.get_base_layer().num_heads

    @property
    def in_proj_weight(self) -> nn.Parameter:
        return self.get_base_layer().in_proj_weight

    @property
    def in_proj_bias(self) -> nn.Parameter | None:
        return self.get_base_layer().in_proj_bias

    @property
    def out_proj(self) -> nn.Module:
        return self.get_base_layer().out_proj


@contextmanager
def _shadowed(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, attributes of ``module`` (dotted names) read as ``weights``; parameters stay where they are."""
    places = [
        (attrgetter(owner)(module) if owner else module, name)
        for owner, _, name in (path.rpartition(".") for path in weights)
    ]
    before = [owner.__dict__.get(name) for owner, name in places]
    for (owner, name), weight in zip(places, weights.values(), strict=True):
        owner.__dict__[name] = weight
    try:
        yield
    finally:
        for (owner, name), gathered in zip(places, before, strict=True):
            if gathered is None:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = gathered
