"""PEFT's layers with the very factors of ours, so that both compute the same numbers."""

import torch
from peft import LoraConfig, PeftConfig, RandLoraConfig, get_peft_model
from torch import nn

from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA


@torch.no_grad()
def peft_lora(base: nn.Linear, ours: LoRA) -> nn.Module:
    layer = _layer(base, LoraConfig(target_modules=["0"], r=ours.rank, lora_alpha=ours.alpha))
    layer.lora_A["default"].weight.copy_(ours.a)
    layer.lora_B["default"].weight.copy_(ours.b)
    return layer


@torch.no_grad()
def peft_conv_lora(base: nn.Conv2d, ours: LoRA) -> nn.Module:
    layer = _layer(base, LoraConfig(target_modules=["0"], r=ours.rank, lora_alpha=ours.alpha))
    layer.lora_A["default"].weight.copy_(ours.a.view(-1, *base.weight.shape[1:]))
    layer.lora_B["default"].weight.copy_(ours.b[..., None, None])
    return layer


@torch.no_grad()
def peft_randlora(base: nn.Linear, ours: RandLoRA) -> nn.Module:
    """It pairs bases in another order, and for square weights its update is the transpose of ours."""
    layer = _layer(base, RandLoraConfig(target_modules=["0"], r=ours.rank, randlora_alpha=ours.alpha))
    num, rank = ours.lam.shape
    layer.randlora_lambda["default"].copy_(ours.lam.T)
    layer.randlora_gamma["default"].copy_(ours.gamma)
    layer.randlora_A["default"].copy_(ours.bases_a.unsqueeze(1))
    paired = ours.bases_b.unflatten(1, (num, rank)).transpose(1, 2).flatten(1)
    layer.randlora_B["default"].copy_(paired.unflatten(1, (num, rank)))
    return layer


def _layer(base: nn.Module, config: PeftConfig) -> nn.Module:
    return get_peft_model(nn.Sequential(base), config).base_model.model[0]
