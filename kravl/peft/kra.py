"""KRAdapter as a method of PEFT."""

from dataclasses import dataclass
from enum import Enum

from kravl.adapters.kra import KRAdapter
from kravl.peft.config import AdapterConfig, register
from kravl.peft.tuner import AdapterModel


class Method(str, Enum):  # noqa: UP042 (as PEFT's enum, which cannot be extended: a string with a value)
    KRADAPTER = "KRADAPTER"


@dataclass
class KRAdapterConfig(AdapterConfig):
    """Config of `kravl.adapters.kra.KRAdapter`: W + scale * ΔW, where row i of ΔW is v_i ⊗ u_i.

    There is no rank: with m the shorter and M the longer side, a matrix has about 2 m sqrt(M) parameters, as many as
    LoRA of rank 64 at 4096 x 4096, and ΔW has full rank.

    Args:
        scale: multiplier of the update; 2 as in the released layer.
        split: length r of u_i: "short" or "long", the floored square root of that side, a number, or
            "2x" for twice the usual number of parameters.
        init_a: negative slope of the Kaiming initialisation of V; U starts at zero.
        dropout: fraction of the columns of ΔW that a step of training drops.

    Example:
        >>> import kravl.peft
        >>> from peft import get_peft_model
        >>> from torch import nn
        >>> base = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        >>> model = get_peft_model(base, kravl.peft.KRAdapterConfig(target_modules=["0"], modules_to_save=["2"]))
        >>> model.print_trainable_parameters()
        trainable params: 1,284 || all params: 5,704 || trainable%: 22.5105
    """

    adapter_class = KRAdapter
    method = Method.KRADAPTER

    scale: float = 2.0
    split: str | int = "short"
    init_a: float = 5.0
    dropout: float = 0.0


@register
class KRAdapterModel(AdapterModel):
    """A model with `KRAdapterConfig`'s adapters; made by ``get_peft_model``."""

    prefix = "kradapter_"
    config_class = KRAdapterConfig
