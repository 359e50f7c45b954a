"""Put adapters on a frozen backbone by swapping the modules' classes: every parameter keeps its name, module and key.

nn.MultiheadAttention hands ``in_proj_weight`` and ``out_proj.weight`` to one function and never calls ``out_proj``, so
wrapping those layers has no effect. Here it becomes `AdaptedAttention`, an nn.Linear `AdaptedLinear`, a convolution
`AdaptedConv2d`, and the owner of any other matrix a subclass that reads it as adapted: also a convolution that changes
its weight or pads its input before it convolves, as timm's StdConv2d and Conv2dSame do. Plain attention layers are
swapped even where nothing in them is adapted.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.attention import AdaptedAttention
from kravl.adapters.injection.conv import ADAPTED_CONVS
from kravl.adapters.injection.linear import AdaptedLinear
from kravl.adapters.injection.parameter import AdapterList, adapted_class
from kravl.adapters.injection.sites import Site, matching, select_sites
from kravl.adapters.injection.storage import StoredEmbedding, stored_types
from kravl.adapters.injection.weights import Buffers
from kravl.runtime.errors import InputError, nearest

log = logging.getLogger(__name__)


def inject(
    model: nn.Module,
    make_adapter: Callable[[int, int], Adapter],
    targets: Sequence[str],
    unfreeze: Sequence[str] = (),
    statistics: Sequence[str] = (),
    frozen_dtype: torch.dtype | None = None,
) -> AdapterSet:
    """Freeze ``model``, put a new adapter on each site that matches ``targets``, and let ``unfreeze`` train as well.

    ``make_adapter`` maps (out_features, in_features) to an adapter, as ``partial(LoRA, rank=4, alpha=4)`` does.
    ``targets`` are shell-style patterns over site names, such as ``"visual.*.attn.q"`` (see sites.py),
    ``unfreeze`` over parameter names, such as ``"*.bias"``; both may be empty. An adapted weight stays frozen.
    ``statistics`` are names of buffers that training changes: they are saved, merged and restored with what trains.
    ``frozen_dtype``, torch.bfloat16, is the type in which frozen matrices are stored, adapted ones too: see storage.py.

    Raises:
        InputError: a pattern matches nothing, two sites overlap, or another ``frozen_dtype``; the model is unchanged.
        RuntimeError: the model already has adapters.

    Examples:
        >>> from functools import partial
        >>> from torch import nn
        >>> from kravl import KRAdapter, inject
        >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
        >>> adapters = inject(model, partial(KRAdapter, scale=2.0), ["0"], unfreeze=["2.*"])
        >>> adapters.num_trainable()
        324
    """
    if any(isinstance(module, Adapter | AdapterList) for module in model.modules()):
        raise RuntimeError("the model is already adapted; merge_and_unload() its adapters before injecting others")
    sites = select_sites(model, targets)
    unfrozen = matching_parameters(model, unfreeze, sites)
    stored = stored_types(model, unfrozen.values(), frozen_dtype)
    adapters = _make_adapters(make_adapter, sites, dict.fromkeys(stored, frozen_dtype))
    _freeze(model, unfrozen.values())
    swapped = _swap_classes(model, sites, adapters, stored)
    for parameter in stored:
        parameter.data = parameter.data.to(frozen_dtype)
    return AdapterSet(sites, adapters, unfrozen, swapped, Buffers(model, statistics), stored)


def _freeze(model: nn.Module, unfrozen: Iterable[nn.Parameter]) -> None:
    model.requires_grad_(False)
    for parameter in unfrozen:
        parameter.requires_grad_(True)


def matching_parameters(model: nn.Module, patterns: Sequence[str], sites: Sequence[Site]) -> dict[str, nn.Parameter]:
    """The parameters of ``model`` besides the weights of ``sites`` whose name matches any of ``patterns``.

    Raises:
        InputError: a pattern matches nothing.
    """
    adapted = {id(site.parameter) for site in sites}
    free = {name: p for name, p in model.named_parameters() if id(p) not in adapted}
    chosen: set[str] = set()
    for pattern in patterns:
        found = matching(pattern, free)
        if not found:
            near = nearest(pattern, free)
            raise InputError(f"unfreeze pattern {pattern!r} matches no unadapted parameter; the nearest are {near}")
        chosen.update(found)
    return {name: parameter for name, parameter in free.items() if name in chosen}


def _make_adapters(
    make_adapter: Callable[[int, int], Adapter],
    sites: Iterable[Site],
    rounded: Mapping[nn.Parameter, torch.dtype | None],  # weights that will be, and to what
) -> dict[str, Adapter]:
    adapters: dict[str, Adapter] = {}
    frozen: list[nn.Parameter] = []
    large = []
    for site in sites:
        adapter = make_adapter(*site.weight.shape)
        weight, dtype = site.weight, torch.promote_types(site.weight.dtype, torch.float32)
        weight = weight.to(rounded.get(site.parameter)).to(weight.dtype)
        adapter.to(device=weight.device, dtype=dtype).attach(weight)
        _tie_frozen(adapter, frozen)
        adapters[site.name] = adapter
        if sum(p.numel() for p in adapter.parameters() if p.requires_grad) > site.weight.numel():
            large.append(site.name)
    if large:
        log.warning("adapters with more trainable parameters than the weight they adapt: %s", ", ".join(large))
    return adapters


def _tie_frozen(adapter: Adapter, shared: list[nn.Parameter]) -> None:
    """Replace each frozen parameter by an equal one of ``shared``, or add it: random bases are stored once."""
    for module in adapter.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad:
                continue
            alike = (p for p in shared if p.shape == parameter.shape and p.dtype == parameter.dtype)
            equal = next((p for p in alike if p.device == parameter.device and torch.equal(p, parameter)), None)
            if equal is None:
                shared.append(parameter)
            else:
                setattr(module, name, equal)


def _swap_classes(
    model: nn.Module,
    sites: Sequence[Site],
    adapters: dict[str, Adapter],
    stored: Mapping[nn.Parameter, torch.dtype],
) -> list[tuple[nn.Module, type[nn.Module]]]:
    """Attach the adapters to the modules that hold their weights; return each module with its original class."""
    lists: dict[nn.Module, AdapterList] = {}
    for module in list(model.modules()):
        if _is_plain_attention(module):
            lists[module] = AdapterList()
        for param, parameter in module._parameters.items():
            for site in sites:
                if parameter is site.parameter:  # a weight shared by several modules is adapted in each of them
                    lists.setdefault(module, AdapterList()).add(adapters[site.name], param, site.rows)
            if parameter is not None and parameter in stored:
                lists.setdefault(module, AdapterList()).read_as = stored[parameter]
    swapped = [(module, type(module)) for module in lists]
    for module, attached in lists.items():
        module.adapters = attached.train(module.training)
        module.__class__ = _adapted(module, attached)
    return swapped


def _is_plain_attention(module: nn.Module) -> bool:
    return type(module) is nn.MultiheadAttention and module.in_proj_weight is not None


def _adapted(module: nn.Module, attached: AdapterList) -> type[nn.Module]:
    if _is_plain_attention(module):
        return AdaptedAttention
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return AdaptedLinear
    if type(module) is nn.Embedding and not attached.places:
        return StoredEmbedding
    if type(module) in ADAPTED_CONVS:
        return ADAPTED_CONVS[type(module)]
    return adapted_class(type(module), tuple(sorted({param for param, _ in attached.places})))  # type: ignore[arg-type]
