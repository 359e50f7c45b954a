"""Adapters between kravl and PEFT: the same tensors, under the names and in the files of the other."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig
from safetensors.torch import save
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import AdapterSet, sha256
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import read_adapters
from kravl.adapters.injection.sites import find_sites, select_sites
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.peft.clip_names import Place, same_name
from kravl.peft.config import AdapterConfig
from kravl.peft.saved import read_saved
from kravl.runtime.errors import InputError, nearest, some_of
from kravl.runtime.files import write_atomic

ROOT = "base_model.model."
LORA_NAMES = {"a": "lora_A.weight", "b": "lora_B.weight"}
Places = Callable[[str], Sequence[Place]]  # of a site
ONLY_PEFT = ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication", "target_parameters")


class Target(NamedTuple):
    """Where an update goes: the module that PEFT adapts, the part of its weights, and that weight as it is stored."""

    place: Place
    module: str
    part: str
    weight: Any  # a Tensor, (out, in)
    linear: bool = True  # else a convolution


def save_for_peft(
    source: AdapterSet | Path | str,
    model: nn.Module,
    folder: Path | str,
    places: Places = same_name,
    base_model: str | None = None,
) -> None:
    """Write adapters of kravl as a folder that ``PeftModel.from_pretrained(model, folder)`` loads.

    Args:
        source: adapters in a model, or the ``adapter.safetensors`` of a run.
        model: the base model of the PEFT adapter. Its weights must be, bit for bit, those that ``source`` was trained
            on; they are compared.
        folder: is made, with ``adapter_config.json`` and ``adapter_model.safetensors`` in it.
        places: where the weights of a site are in ``model``; `kravl.peft.clip_names.open_clip_to_hugging_face` takes a
            run of kravl on an open_clip model to transformers' CLIPModel.
        base_model: name or folder of the base model, for the record.

    Raises:
        InputError: the base weights differ, or ``model`` has no place for an update: KRAdapter on queries, keys and
            values as one matrix, for one, is no KRAdapter on each of them.
    """
    record, tensors = _read(source)
    sites = sorted(record["sites"])
    targets = {site: [_find(model, site, place, sites) for place in places(site)] for site in sites}
    whole = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in sites}
    modules = _modules_of(model, whole)
    _check_base(record, targets, whole)
    config = _config_of(record)
    keys = {f"{ROOT}{name}": tensor.contiguous() for name, tensor in whole.items()}
    for site, found in targets.items():
        own = {key.removeprefix(f"{site}."): tensor for key, tensor in tensors.items() if key.startswith(f"{site}.")}
        for target in found:
            keys |= _peft_keys(own, config, target, site)
    config.target_modules = {target.module for found in targets.values() for target in found}
    config.modules_to_save, config.base_model_name_or_path, config.inference_mode = modules or None, base_model, True
    if isinstance(config, AdapterConfig):
        config.adapt_out_proj = any(target.part == "out_proj." for found in targets.values() for target in found)
    _write(Path(folder), config, keys)


def load_from_peft(model: nn.Module, folder: Path | str, places: Places = same_name) -> AdapterSet:
    """Put the adapter that PEFT saved in ``folder`` on the plain base ``model``, as adapters of kravl.

    They can be trained, merged, inspected and, by `kravl.save_adapters`, saved as any others. PEFT's file does not say
    which base weights it was trained on: only their shapes are compared.

    Args:
        places: where the weights of a site of ``model`` are in the model that PEFT trained; as for `save_for_peft`,
            `open_clip_to_hugging_face` takes an adapter of transformers' CLIPModel to the same weights in open_clip.

    Raises:
        InputError: as `read_saved`; or the method or a setting of it is one that kravl has not, or the weights do not
            fit the model, which is left as it was.
    """
    config, read = read_saved(Path(folder), next(model.parameters()).dtype)
    make = _adapter_of(config)
    tensors: dict[str, Tensor] = {}
    for key, tensor in read.items():
        tensors[_kravl_name(model, key.removeprefix(ROOT), config)] = tensor
    adapted = [name for name in tensors if name.rpartition(".")[2] in ("a", "b", "u", "v")]
    if places is not same_name:
        returned = _returned({name: tensors.pop(name) for name in adapted}, model, config, places)
        adapted, tensors = list(returned), tensors | returned
    sites = sorted({name.rpartition(".")[0] for name in adapted})
    whole = sorted(tensors.keys() - set(adapted))
    for site in select_sites(model, [escape(name) for name in sites]):
        with torch.device("meta"):
            expected = {f"{site.name}.{name}": p.shape for name, p in make(*site.weight.shape).named_parameters()}
        for name, shape in expected.items():
            saved = tensors[name].shape if name in tensors else None
            if saved != shape:
                size = "x".join(map(str, site.weight.shape))
                raise InputError(f"{str(folder)!r} does not fit {site.name} ({size}): {name} is {saved}, not {shape}")
    adapters = inject(model, make, [escape(name) for name in sites], unfreeze=[escape(name) for name in whole])
    adapters.load_state_dict(tensors)
    return adapters


def _read(source: AdapterSet | Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not isinstance(source, AdapterSet):
        record, tensors = read_adapters(source)
    elif source.merged:
        raise InputError("the adapters are merged; unmerge() them before they are saved")
    else:
        record, tensors = source.description() | {"base_sha256": source.base_sha256()}, source.state_dict()
    if not isinstance(record.get("sites"), dict) or not record["sites"]:
        raise InputError("there are no adapters to save")
    return record, tensors


def _find(model: nn.Module, site: str, place: Place, sites: Sequence[str]) -> Target:
    modules = dict(model.named_modules())
    module, (parent, _, last) = modules.get(place.module), place.module.rpartition(".")
    attention = isinstance(modules.get(parent), nn.MultiheadAttention)
    if attention and last == "qkv":
        return Target(place, parent, "in_proj.", modules[parent]._parameters["in_proj_weight"])
    if attention and module is not None and last == "out_proj" and f"{parent}.qkv" in sites:
        return Target(place, parent, "out_proj.", module._parameters["weight"])
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        weight = module._parameters["weight"]
        assert weight is not None
        return Target(place, place.module, "", weight.flatten(1), isinstance(module, nn.Linear))
    if attention and last in "qkv":
        raise InputError(f"PEFT cannot adapt {site!r} alone, rows of the packed weight of {parent!r}")
    near = ", ".join(nearest(place.module, [name for name, m in modules.items() if isinstance(m, nn.Linear)]))
    raise InputError(f"the model has no layer {place.module!r} for site {site!r}; the nearest are {near}")


def _modules_of(model: nn.Module, whole: Mapping[str, Tensor]) -> list[str]:
    """The modules whose parameters are all in ``whole``, which PEFT saves as modules_to_save."""
    modules = sorted({name.rpartition(".")[0] for name in whole})
    for name in modules:
        parameters = {f"{name}.{p}" for p, _ in model.get_submodule(name).named_parameters()} if name else set()
        if left := [key for key in whole if key.rpartition(".")[0] == name and key not in parameters]:
            raise InputError(f"PEFT saves whole modules, and {left[0]!r} is no parameter of one")
        if missing := sorted(parameters - whole.keys()):
            raise InputError(f"PEFT saves whole modules, and of {name!r} {some_of(missing, 3)} did not train")
    return modules


def _check_base(record: Mapping[str, Any], targets: Mapping[str, list[Target]], whole: Mapping[str, Tensor]) -> None:
    weights = {f"{name} {tuple(tensor.shape)}": torch.empty(0) for name, tensor in whole.items()}
    for site, found in targets.items():
        parts = [target.weight.T if target.place.transposed else target.weight for target in found]
        weights[site] = torch.cat(parts).detach()
        if list(weights[site].shape) != record["sites"][site]:
            size = "x".join(map(str, record["sites"][site]))
            raise InputError(f"site {site!r} was {size}; in the model it is {'x'.join(map(str, weights[site].shape))}")
    if sha256(weights) != record.get("base_sha256"):
        raise InputError("the adapters were trained on other base weights than the model's")


def require_method(method: str) -> None:
    """Raise InputError where neither PEFT nor `kravl.peft` has the ``method``, the full name of an adapter's class."""
    legal = [_name(LoRA), *sorted(_configs())]
    if method not in legal:
        raise InputError(f"PEFT has no method for {method!r}; {', '.join(legal)} can go there")


def _configs() -> dict[str, type[AdapterConfig]]:
    """Those of `kravl.peft`, by the full name of the adapter's class."""
    return {_name(c.adapter_class): c for c in PEFT_TYPE_TO_CONFIG_MAPPING.values() if issubclass(c, AdapterConfig)}


def _config_of(record: Mapping[str, Any]) -> PeftConfig:
    method, hyperparameters = str(record.get("method")), dict(record.get("hyperparameters") or {})
    require_method(method)
    configs = _configs()
    cls = LoRA if method == _name(LoRA) else configs[method].adapter_class
    names = inspect.signature(cls).parameters.keys() - {"out_features", "in_features"}
    if hyperparameters.keys() != names:
        raise InputError(f"the hyper-parameters of {method} are {', '.join(sorted(names))}, not {hyperparameters}")
    if cls is not LoRA:
        return configs[method](**hyperparameters)
    return LoraConfig(
        r=hyperparameters["rank"],
        lora_alpha=hyperparameters["alpha"],
        use_rslora=hyperparameters["rank_stabilised"],
        lora_dropout=hyperparameters["dropout"],
    )


def _adapter_of(config: PeftConfig) -> Callable[[int, int], Adapter]:
    if isinstance(config, AdapterConfig):
        if config.weights is not None:
            raise InputError("a weighted sum of adapters has no adapter of kravl; merge it into the model instead")
        return partial(config.adapter_class, **config.hyperparameters())
    if not isinstance(config, LoraConfig):
        raise InputError(f"kravl cannot read adapters of PEFT's {config.peft_type.value}")
    used = [name for name in ONLY_PEFT if getattr(config, name, None)]
    if used or config.bias != "none":
        raise InputError(f"kravl's LoRA has no {', '.join(used or ['bias'])}")
    return partial(
        LoRA,
        rank=config.r,
        alpha=config.lora_alpha,
        rank_stabilised=config.use_rslora,
        dropout=config.lora_dropout,
    )


def _moved(own: dict[str, Tensor], config: PeftConfig, target: Target, site: str) -> dict[str, Tensor]:
    """The factors of a site as those of the update at ``target``."""
    third, transposed = target.place.third, target.place.transposed
    if isinstance(config, LoraConfig) and not target.linear:
        raise InputError(f"site {site!r} is a convolution, for which PEFT's LoRA has factors of other shapes")
    if third is None and not transposed:
        return own
    if isinstance(config, LoraConfig):
        if transposed:
            return {"a": own["b"].T, "b": own["a"].T}
        return own if third is None else {"a": own["a"], "b": own["b"].chunk(3)[third]}
    rectangular = target.weight.shape[0] != target.weight.shape[1]
    if third is None and rectangular and getattr(config, "adapter_class", None) is KRAdapter:
        return own  # it is laid along the longer side, whichever that is
    what = "its transpose" if transposed else "a third of its rows"
    raise InputError(
        f"the update of {site!r} goes to {target.module!r} as {what}, which no {config.peft_type.value} is"
    )


def _returned(tensors: Mapping[str, Tensor], model: nn.Module, config: PeftConfig, places: Places) -> dict[str, Tensor]:
    """The factors ``tensors``, under names of modules of another model, as those of the sites of ``model``."""
    sites: dict[str, tuple[str, Target]] = {}
    for site in find_sites(model):
        with suppress(InputError):  # a site without a counterpart there
            first, *more = places(site.name)
            if not more:
                sites[first.module] = site.name, Target(first, first.module, "", site.weight)
    moved: dict[str, Tensor] = {}
    for module in sorted({name.rpartition(".")[0] for name in tensors}):
        if module not in sites:
            near = ", ".join(nearest(module, list(sites)))
            raise InputError(f"the model has no site for {module!r}, which the adapter is on; the nearest are {near}")
        name, target = sites[module]
        own = {key.removeprefix(f"{module}."): tensors[key] for key in tensors if key.rpartition(".")[0] == module}
        moved |= {f"{name}.{key}": t.contiguous() for key, t in _moved(own, config, target, name).items()}
    return moved


def _peft_keys(own: dict[str, Tensor], config: PeftConfig, target: Target, site: str) -> dict[str, Tensor]:
    """The factors of a site under the names and with the values that PEFT has for them at ``target``."""
    keys = {}
    for name, tensor in _moved(own, config, target, site).items():
        kravls = f"{config.peft_type.value.lower()}_factors.{target.part}{name}"
        key = LORA_NAMES[name] if isinstance(config, LoraConfig) else kravls
        keys[f"{ROOT}{target.module}.{key}"] = tensor.clone(memory_format=torch.contiguous_format)
    return keys


def _write(folder: Path, config: PeftConfig, keys: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "adapter_model.safetensors", save(dict(keys), {"format": "pt"}))
    config.save_pretrained(str(folder))


def _kravl_name(model: nn.Module, key: str, config: PeftConfig) -> str:
    """The name in kravl of a tensor that PEFT saved under ``key``."""
    container = "lora_([AB])" if isinstance(config, LoraConfig) else f"{config.peft_type.value.lower()}_factors"
    match = re.fullmatch(rf"(.+)\.{container}\.((?:(\w+)\.)?(\w+))", key)
    if match is None:
        if key not in dict(model.named_parameters()):
            raise InputError(f"the model has no parameter {key!r}, which the adapter holds")
        return key
    if isinstance(config, LoraConfig):
        return f"{match[1]}.{match[2].lower()}"
    part = {"in_proj": ".qkv", "out_proj": ".out_proj", None: ""}.get(match[3])
    if part is None:
        raise InputError(f"the adapter holds {key!r}, which is no factor of an adapter of kravl")
    return f"{match[1]}{part}.{match[4]}"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
