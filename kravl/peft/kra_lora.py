"""KRAdapter with a small LoRA in its budget, an experiment of kravl's own, as a method of PEFT."""

from dataclasses import dataclass
from enum import Enum

from kravl.adapters.kra_lora import KRALoRA
from kravl.peft.config import AdapterConfig, register
from kravl.peft.tuner import AdapterModel


class Method(str, Enum):  # noqa: UP042 (as in kra.py)
    KRALORA = "KRALORA"


@dataclass
class KRALoRAConfig(AdapterConfig):
    """Config of `kravl.adapters.kra_lora.KRALoRA`: a Khatri-Rao product with shared rows, plus B A.

    Args:
        share: neighbouring rows that share their factor v.
        rank: of the low-rank part; None spends KRAdapter's number of parameters.
        scale: multiplier of the update.
        dropout: fraction of the columns of ΔW that a step of training drops.
    """

    adapter_class = KRALoRA
    method = Method.KRALORA

    share: int = 2
    rank: int | None = None
    scale: float = 2.0
    dropout: float = 0.0


@register
class KRALoRAModel(AdapterModel):
    """A model with `KRALoRAConfig`'s adapters; made by ``get_peft_model``."""

    prefix = "kralora_"
    config_class = KRALoRAConfig
