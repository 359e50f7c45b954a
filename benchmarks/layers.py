"""The layers that layer.py compares: frozen, full, the published KRAdapter layer from its formula, ours, and PEFT's."""

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.injection.linear import AdaptedLinear
from kravl.adapters.injection.parameter import AdapterList
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.randlora import RandLoRA

FULL, PUBLISHED = "full fine-tuning", "KRAdapter, published layer"
KRA, LORA, RANDLORA = "KRAdapter, kravl", "LoRA r16, kravl", "RandLoRA r10, kravl"
PEFT_LORA, PEFT_RANDLORA = "LoRA r16, PEFT", "RandLoRA r10, PEFT"
SAME = {KRA: PUBLISHED, LORA: PEFT_LORA, RANDLORA: PEFT_RANDLORA}  # ours -> what computes the same


class PublishedLayer(nn.Module):
    """y = W x + b + scale * ΔW x: two products of the whole width, ΔW broadcast, cut and transposed, all by autograd.

    The formula of the method's released layer (https://arxiv.org/abs/2508.00230).
    """

    def __init__(self, base: nn.Linear, adapter: KRAdapter) -> None:
        super().__init__()
        self.base, self.u, self.v, self.scale = base, adapter.u, adapter.v, adapter.scale

    def forward(self, x: Tensor) -> Tensor:
        out, columns = self.base.weight.shape
        update = (self.v.unsqueeze(2) * self.u.unsqueeze(1)).flatten(1)[:, : max(out, columns)]
        return self.base(x) + self.scale * (x @ (update.T if out <= columns else update))


def make_layers(out: int, columns: int, like: Tensor) -> dict[str, nn.Module]:
    """The layers by name, with the same weights, on the device and in the type of ``like``; PEFT's if it is there."""
    adapters: dict[str, Callable[[int, int], Adapter]] = {
        KRA: KRAdapter,
        LORA: partial(LoRA, rank=16, alpha=16),
        RANDLORA: partial(RandLoRA, rank=10, alpha=200),
    }
    layers: dict[str, nn.Module] = {"frozen": _base(out, columns), FULL: _base(out, columns)}
    layers[FULL].weight.requires_grad_(True)
    made = {name: away_from_zero(make(out, columns)) for name, make in adapters.items()}
    layers[PUBLISHED] = PublishedLayer(_base(out, columns), made[KRA])  # type: ignore[arg-type]
    layers |= {name: _adapted(_base(out, columns), adapter) for name, adapter in made.items()}
    if importlib.util.find_spec("peft"):
        from peft_layers import peft_lora, peft_randlora

        layers[PEFT_LORA] = peft_lora(_base(out, columns), made[LORA])  # type: ignore[arg-type]
        layers[PEFT_RANDLORA] = peft_randlora(_base(out, columns), made[RANDLORA])  # type: ignore[arg-type]
    return {name: layer.to(like) for name, layer in layers.items()}


def _base(out: int, columns: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, out).requires_grad_(False)


def _adapted(base: nn.Linear, adapter: Adapter) -> nn.Module:
    """As `kravl.adapters.injection.inject` leaves a layer; that needs packages that these layers do not."""
    blocks = AdapterList()
    blocks.add(adapter, "weight", slice(0, base.out_features))
    base.adapters = blocks
    base.__class__ = AdaptedLinear
    return base


@torch.no_grad()
def away_from_zero(adapter: Adapter) -> Adapter:
    """The adapter with an update that is not zero."""
    for parameter in adapter.parameters():
        if not parameter.count_nonzero():
            parameter.normal_(std=0.02)
    return adapter
