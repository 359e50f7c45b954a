"""A LoRA that ``PeftModel.from_pretrained`` puts on transformers' CLIPModel, which lies beside it in ``base``."""

from importlib.util import find_spec
from pathlib import Path

from kravl.adapters.lora import LoRA
from kravl.export.formats import transformers
from kravl.export.plain import PlainModel
from kravl.run.finished.restore import LoadedRun
from kravl.runtime.errors import InputError

TOLERANCE = 1e-5
ADAPTER_ALONE = True  # the encoder that `write` is given has its pretrained weights
BASE = "base"


def require(run: LoadedRun, alpha: float) -> None:
    """Raise InputError where PEFT alone could not load the adapter."""
    if missing := [name for name in ("peft", "transformers") if find_spec(name) is None]:
        raise InputError(f"--to peft needs {' and '.join(missing)}: pip install 'kravl[peft,text]'")
    method = run.adapters.description()["method"]
    if method is None:
        raise InputError(f"--to peft writes adapted matrices, of which {run.cfg.label} has none: --to transformers")
    if method != f"{LoRA.__module__}.{LoRA.__qualname__}":
        raise InputError(
            f"--to peft writes a LoRA, which PEFT knows; {str(method).rpartition('.')[2]} needs `import kravl.peft` "
            "where it is loaded (kravl.peft.save_for_peft writes it): --to transformers merges it"
        )
    if alpha != 1:
        raise InputError(f"--alpha {alpha:g} is of merged weights; --to peft writes the adapter as it was trained")


def write(model: PlainModel, folder: Path) -> list[str]:
    """The adapter, and its base model with tokenizer, processor and the class features of the adapted text tower."""
    from transformers import CLIPModel

    from kravl.peft.clip_names import open_clip_to_hugging_face
    from kravl.peft.exchange import save_for_peft

    base = folder / BASE
    base.mkdir()
    notes = transformers.write(model, base)
    save_for_peft(
        model.run.folder.adapter, CLIPModel.from_pretrained(base), folder, open_clip_to_hugging_face, base_model=BASE
    )
    return [f"an adapter holds no base model: its pretrained weights are in {BASE}", *notes]
