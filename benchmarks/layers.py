"""The layers that layer.py compares: frozen, full, the published KRAdapter layer from its formula, ours, and PEFT's."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.bat import Bat
from kravl.adapters.budget import kradapter_size
from kravl.adapters.c3a import C3A
from kravl.adapters.delora import DeLoRA
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.hra import HRA
from kravl.adapters.injection.linear import AdaptedLinear
from kravl.adapters.injection.parameter import AdapterList
from kravl.adapters.kra import KRAdapter
from kravl.adapters.loha import LoHa
from kravl.adapters.lokr import LoKr
from kravl.adapters.lora import LoRA
from kravl.adapters.miss import MiSS
from kravl.adapters.oft import OFT
from kravl.adapters.pissa import PiSSA
from kravl.adapters.psoft import PSOFT
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.road import RoAd
from kravl.adapters.shira import SHiRA
from kravl.adapters.waveft import WaveFT

FULL, PUBLISHED = "full fine-tuning", "KRAdapter, published layer"
MAIN = ("KRAdapter", "LoRA r16", "RandLoRA r10")
MakeAdapter = Callable[[int, int], Adapter]


def shira(out: int, columns: int) -> SHiRA:
    """With KRAdapter's number of values, rounded to a multiple of out + in, which PEFT asks for."""
    multiple = max(1, round(kradapter_size((out, columns)) / (out + columns)))
    return SHiRA(out, columns, num_values=min(multiple, out * columns // (out + columns)) * (out + columns))


# those without a number are of KRAdapter's size
METHODS: dict[str, MakeAdapter] = {
    "KRAdapter": KRAdapter,
    "LoRA r16": partial(LoRA, rank=16, alpha=16),
    "RandLoRA r10": partial(RandLoRA, rank=10, alpha=200),
    "SHiRA": shira,
    "HiRA": HiRA,
    "LoHa": LoHa,
    "C3A": C3A,
    "FourierFT": FourierFT,
    "WaveFT": WaveFT,
    "PiSSA": PiSSA,
    "GraLoRA": GraLoRA,
    "DeLoRA": DeLoRA,
    "MiSS": MiSS,
    "Bat": Bat,
    "LoKr": LoKr,
    "OFT": OFT,
    "HRA": HRA,
    "RoAd": RoAd,
    "PSOFT": PSOFT,
}
SINGLE = ("C3A", "FourierFT")  # PEFT computes them in single precision
# whose output differs: PEFT's RandLoRA has the transposed update where the sides are equal, its RoAd rotates the bias
OTHER = ("RandLoRA r10", "RoAd")


def has_peft() -> bool:
    """Whether PEFT is installed; a folder of that name in Python's path, such as tests/peft, is not it."""
    return getattr(importlib.util.find_spec("peft"), "origin", None) is not None


def ours(method: str) -> str:
    """The name of kravl's layer."""
    return f"{method}, kravl"


def theirs(method: str) -> str:
    """The name of the layer that computes the same."""
    return PUBLISHED if method == "KRAdapter" else f"{method}, PEFT"


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


def make_layers(out: int, columns: int, like: Tensor, methods: Sequence[str] = MAIN) -> dict[str, nn.Module]:
    """The layers by name, with the same weights, on the device and in the type of ``like``; PEFT's if it is there."""
    layers: dict[str, nn.Module] = {"frozen": _base(out, columns), FULL: _base(out, columns)}
    layers[FULL].weight.requires_grad_(True)
    for method in methods:
        base, adapter = _base(out, columns).to(like), METHODS[method](out, columns).to(like)
        adapter.attach(base.weight.detach())
        away_from_zero(adapter)
        layers[ours(method)] = _adapted(base, adapter)
        if method == "KRAdapter":
            layers[theirs(method)] = PublishedLayer(_base(out, columns).to(like), adapter)  # type: ignore[arg-type]
        elif has_peft() and not (method == "RoAd" and out % 2):  # PEFT's leaves no output without a partner
            from peft_layers import PEFT

            layers[theirs(method)] = PEFT[type(adapter)](_base(out, columns).to(like), adapter)
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
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return adapter
