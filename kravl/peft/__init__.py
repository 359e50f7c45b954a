"""KRAdapter and kravl's other updates as methods of Hugging Face's PEFT: ``import kravl.peft`` adds them to it.

    import kravl.peft
    from peft import get_peft_model

    model = get_peft_model(model, kravl.peft.KRAdapterConfig(target_modules="all-linear"))

PEFT finds its methods in dictionaries that this import fills; nothing of PEFT is changed. A saved adapter is loaded by
``PeftModel.from_pretrained`` after the same import: without it PEFT ends in ``KeyError: 'KRADAPTER'``.
"""

import importlib.metadata

from packaging.version import Version

from kravl.runtime.errors import InputError

FIRST = "0.21"  # earlier releases save and load only what a closed enum of theirs names


def _require_peft() -> None:
    try:
        installed = importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("kravl.peft needs PEFT, which is not installed: pip install 'kravl[peft]'") from None
    if Version(installed).release < Version(FIRST).release:
        reason = "it saves and loads only its own methods"
        raise InputError(f"peft {installed} is too old for kravl.peft: {reason}; pip install 'peft>={FIRST}'")


_require_peft()

from kravl.peft.exchange import load_from_peft as load_from_peft  # noqa: E402
from kravl.peft.exchange import save_for_peft as save_for_peft  # noqa: E402
from kravl.peft.hotswap import hotswap_adapter as hotswap_adapter  # noqa: E402
from kravl.peft.kra import KRAdapterConfig as KRAdapterConfig  # noqa: E402
from kravl.peft.kra import KRAdapterModel as KRAdapterModel  # noqa: E402
from kravl.peft.kra_lora import KRALoRAConfig as KRALoRAConfig  # noqa: E402
from kravl.peft.kra_lora import KRALoRAModel as KRALoRAModel  # noqa: E402
from kravl.peft.krona import KronAConfig as KronAConfig  # noqa: E402
from kravl.peft.krona import KronAModel as KronAModel  # noqa: E402
from kravl.peft.sinlora import SinLoRAConfig as SinLoRAConfig  # noqa: E402
from kravl.peft.sinlora import SinLoRAModel as SinLoRAModel  # noqa: E402
