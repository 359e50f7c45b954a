"""kravl: Khatri-Rao adapters for vision-language models.

    from kravl import KRAdapter, inject, save_adapters
    model = kravl.fit("photos/train", model="ViT-B-16", method="kra", shots=16)

Public names are imported on first use: ``import kravl`` alone does not import torch.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kravl.adapters.base import Adapter as Adapter
    from kravl.adapters.dora import DoRA as DoRA
    from kravl.adapters.full import Full as Full
    from kravl.adapters.injection.adapter_set import AdapterSet as AdapterSet
    from kravl.adapters.injection.inject import inject as inject
    from kravl.adapters.injection.serialization import load_adapters as load_adapters
    from kravl.adapters.injection.serialization import save_adapters as save_adapters
    from kravl.adapters.kra import KRAdapter as KRAdapter
    from kravl.adapters.kra_lora import KRALoRA as KRALoRA
    from kravl.adapters.krona import KronA as KronA
    from kravl.adapters.lora import LoRA as LoRA
    from kravl.adapters.randlora import RandLoRA as RandLoRA
    from kravl.adapters.rank import effective_rank as effective_rank
    from kravl.adapters.sinlora import SinLoRA as SinLoRA
    from kravl.adapters.vera import VeRA as VeRA
    from kravl.api.estimator import FewShotClassifier as FewShotClassifier
    from kravl.api.fit import fit as fit
    from kravl.api.model import FewShotModel as FewShotModel
    from kravl.runtime.errors import InputError as InputError

__version__ = "0.1.0"
__path__.append(str(Path(__file__).parent / "cli/former"))  # python -m kravl.spectra; until the next release
_MODULES = {
    "AdapterSet": "kravl.adapters.injection.adapter_set",
    "FewShotClassifier": "kravl.api.estimator",
    "FewShotModel": "kravl.api.model",
    "InputError": "kravl.runtime.errors",
    "effective_rank": "kravl.adapters.rank",
    "fit": "kravl.api.fit",
    "inject": "kravl.adapters.injection.inject",
    "load_adapters": "kravl.adapters.injection.serialization",
    "save_adapters": "kravl.adapters.injection.serialization",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name) or _adapters().get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_adapters()})


def _adapters() -> dict[str, str]:
    """Class -> module of every adapter, found by its file: a method is added without a change here."""
    return {
        name: f"kravl.adapters.{path.stem}"
        for path in (Path(__file__).parent / "adapters").glob("*.py")
        for name in re.findall(
            r"^class (\w+)\((?:nn\.Module|\w*Adapter)\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
