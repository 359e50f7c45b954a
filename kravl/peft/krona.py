"""KronA as a method of PEFT."""

from dataclasses import dataclass
from enum import Enum

from kravl.adapters.krona import KronA
from kravl.peft.config import AdapterConfig, register
from kravl.peft.tuner import AdapterModel


class Method(str, Enum):  # noqa: UP042 (as in kra.py)
    KRONA = "KRONA"


@dataclass
class KronAConfig(AdapterConfig):
    """Config of `kravl.adapters.krona.KronA`: ΔW = A ⊗ B cut to (out, in), A (factor, factor).

    Args:
        factor: side of A; about out * in / factor² parameters.
        scale: multiplier of the update.
        dropout: fraction of the columns of ΔW that a step of training drops.
    """

    adapter_class = KronA
    method = Method.KRONA

    factor: int = 8
    scale: float = 1.0
    dropout: float = 0.0


@register
class KronAModel(AdapterModel):
    """A model with `KronAConfig`'s adapters; made by ``get_peft_model``."""

    prefix = "krona_"
    config_class = KronAConfig
