"""An adapter that ``PeftModel.from_pretrained`` puts on its base model, which lies beside it in ``base``.

A LoRA goes to transformers' CLIPModel and is loaded by PEFT alone. KRAdapter and other methods of `kravl.peft` are
ones of PEFT after ``import kravl.peft``; on queries, keys and values as one matrix they go to open_clip's own model,
since an update of the three is none of each of them.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kravl.adapters.lora import LoRA
from kravl.config.schema import Config
from kravl.export.formats import open_clip, transformers
from kravl.export.plain import PlainModel
from kravl.runtime.errors import InputError

TOLERANCE = 1e-5
TWO_TOWERS = "open_clip"
ADAPTER_ALONE = True  # the encoder that `write` is given has its pretrained weights
BASE = "base"
EXTENSION = "kravl.peft"


def require(cfg: Config, method: str | None, alpha: float) -> None:
    """Raise InputError where PEFT could not load the adapter."""
    own = method is not None and not _is_lora(method)
    if missing := [name for name in ("peft", *(() if own else ("transformers",))) if find_spec(name) is None]:
        raise InputError(f"--to peft needs {' and '.join(missing)}: pip install 'kravl[peft,text]'")
    if method is None:
        raise InputError(f"--to peft writes adapted matrices, of which {cfg.label} has none: --to transformers")
    if alpha != 1:
        raise InputError(f"--alpha {alpha:g} is of merged weights; --to peft writes the adapter as it was trained")
    if cfg.linear_head or cfg.context_tokens:
        what = "class weights (linear_head)" if cfg.linear_head else f"a context (context_tokens={cfg.context_tokens})"
        raise InputError(f"--to peft keeps modules of the base alone, and {cfg.label} has trained {what}: --to onnx")
    if dtype := cfg.backbone.build.get("dtype"):
        raise InputError(
            f"--to peft gives the base its own weights, and backbone.build.dtype={dtype} rounded them: --to pt2"
        )
    if own:
        from kravl.peft.exchange import require_method

        require_method(method)


def write(model: PlainModel, folder: Path) -> list[str]:
    """The adapter, and its base model with tokenizer, processor and the class features of the adapted text tower."""
    base = folder / BASE
    base.mkdir()
    told = [f"an adapter holds no base model: its pretrained weights are in {BASE}"]
    if _of_kravl(model):
        told.append(f"loading takes pip install 'kravl[peft]' and `import {EXTENSION}`")
    return [*told, *(_on_transformers(model, folder) if _is_for_transformers(model) else _on_open_clip(model, folder))]


def about(model: PlainModel) -> dict[str, Any]:
    """What export.json says besides: what load.py imports so that PEFT knows the method."""
    return {"extensions": [EXTENSION] if _of_kravl(model) else []}


def loader(model: PlainModel) -> str:
    """The loader that becomes load.py."""
    return "peft" if _is_for_transformers(model) else "peft_open_clip"


def _on_transformers(model: PlainModel, folder: Path) -> list[str]:
    from transformers import CLIPModel

    from kravl.peft.clip_names import open_clip_to_hugging_face
    from kravl.peft.exchange import save_for_peft

    notes = transformers.write(model, folder / BASE)
    target = CLIPModel.from_pretrained(folder / BASE)
    save_for_peft(model.run.folder.adapter, target, folder, open_clip_to_hugging_face, base_model=BASE)
    return notes


def _on_open_clip(model: PlainModel, folder: Path) -> list[str]:
    from kravl.peft.exchange import save_for_peft

    notes = open_clip.write(model, folder / BASE)
    save_for_peft(model.run.folder.adapter, model.encoder, folder, base_model=BASE)
    return notes


def _is_for_transformers(model: PlainModel) -> bool:
    """Whether the base is a CLIPModel: for a LoRA, and for queries, keys and values apart, as it has them."""
    apart = any(site.endswith((".q", ".k", ".v")) for site in model.run.adapters.adapters)
    return apart or not _of_kravl(model)


def _of_kravl(model: PlainModel) -> bool:
    return not _is_lora(model.run.adapters.description()["method"])


def _is_lora(method: object) -> bool:
    return method == f"{LoRA.__module__}.{LoRA.__qualname__}"
