"""SinLoRA as a method of PEFT."""

from dataclasses import dataclass
from enum import Enum

from kravl.adapters.sinlora import SinLoRA
from kravl.peft.config import AdapterConfig, register
from kravl.peft.tuner import AdapterModel


class Method(str, Enum):  # noqa: UP042 (as in kra.py)
    SINLORA = "SINLORA"


@dataclass
class SinLoRAConfig(AdapterConfig):
    """Config of `kravl.adapters.sinlora.SinLoRA`: ΔW = sin(omega B A) / sqrt(in), scaled by alpha / rank.

    Args:
        rank: inner size of B A.
        alpha: the update is scaled by alpha / rank.
        omega: frequency of the sine.
        dropout: fraction of the columns of ΔW that a step of training drops.
    """

    adapter_class = SinLoRA
    method = Method.SINLORA

    rank: int = 16
    alpha: float = 16.0
    omega: float = 20.0
    dropout: float = 0.0


@register
class SinLoRAModel(AdapterModel):
    """A model with `SinLoRAConfig`'s adapters; made by ``get_peft_model``."""

    prefix = "sinlora_"
    config_class = SinLoRAConfig
