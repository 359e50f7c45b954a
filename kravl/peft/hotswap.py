"""Exchange the weights of a loaded adapter for those of another file, in place: a compiled model stays valid."""

import warnings
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import load_peft_weights

from kravl.peft.config import AdapterConfig
from kravl.peft.layers.layer import AdapterLayer
from kravl.runtime.errors import InputError, some_of, unknown

FREE = ("dropout", "init_a")  # hyper-parameters that say nothing about a trained update


@torch.no_grad()
def hotswap_adapter(model: PeftModel, model_id: str, adapter_name: str = "default", **hub: Any) -> None:
    """Load the adapter in the folder or repository ``model_id`` into ``adapter_name``; PEFT's own knows LoRA alone.

    Layers that the new adapter leaves alone get an update of zero. The model may be compiled.

    Raises:
        InputError: another method or hyper-parameters, weights that this model has no place for, or the adapter is
            merged; nothing is changed.
    """
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, PeftModel):
        raise InputError(f"adapters are exchanged in a PeftModel, not in a {type(model).__name__}")
    if adapter_name not in model.peft_config:
        raise unknown("adapter", adapter_name, model.peft_config)
    layers = [m for m in model.modules() if isinstance(m, AdapterLayer) and adapter_name in m.factors]
    if any(adapter_name in layer.merged_adapters for layer in layers):
        raise InputError(f"adapter {adapter_name!r} is merged; call unmerge_adapter() before it is exchanged")
    current, config = model.peft_config[adapter_name], PeftConfig.from_pretrained(model_id, **hub)
    _check_same(current, config, model_id)
    loaded = load_peft_weights(model_id, device="cpu", **hub)
    with warnings.catch_warnings(action="ignore"):  # of weights without a place, which are an error here
        remapped = model.base_model._remap_adapter_state_dict_for_load(model, current, adapter_name, loaded)
    names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    targets = {names[id(p)]: p for layer in layers for p in layer.factors[adapter_name].parameters()}
    if extra := sorted(remapped.keys() - targets.keys()):
        raise InputError(
            f"{model_id!r} holds weights that adapter {adapter_name!r} has no place for: {some_of(extra, 3)}"
        )
    for name, tensor in remapped.items():
        if tensor.shape != targets[name].shape:
            raise InputError(f"{name} is {tuple(tensor.shape)} in {model_id!r} and {tuple(targets[name].shape)} here")
    for name, parameter in targets.items():
        parameter.copy_(remapped[name]) if name in remapped else parameter.zero_()


def _check_same(current: PeftConfig, config: PeftConfig, model_id: str) -> None:
    if not isinstance(current, AdapterConfig) or type(config) is not type(current):
        raise InputError(
            f"{model_id!r} is a {config.peft_type.value} adapter, the model's is {current.peft_type.value}"
        )
    for name in (*(name for name in config.hyperparameters() if name not in FREE), "weights", "adapt_out_proj"):
        if (value := getattr(config, name)) != (here := getattr(current, name)):
            raise InputError(f"{model_id!r} has {name} {value!r}, the adapter in the model {here!r}")
