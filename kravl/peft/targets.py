"""What the names in a config match, told where it is less than was asked for."""

import warnings
from collections.abc import Iterable, Sequence

from torch import nn

from kravl.peft.config import AdapterConfig
from kravl.runtime.errors import InputError, nearest, some_of

ALL_LINEAR = "all-linear"
ADDED = ("classifier", "score", "qa_outputs")  # modules_to_save that PEFT adds for a task, whichever the model has


def require_possible_name(adapter_name: str) -> None:
    """Raise InputError for a name under which no module can hold an adapter, before anything is changed."""
    if "." in adapter_name:
        raise InputError(f"an adapter cannot be named with a dot: {adapter_name!r}")
    if hasattr(nn.ModuleDict(), adapter_name):
        raise InputError(f"an adapter cannot be named {adapter_name!r}, which every module of PyTorch has as attribute")


def suggestion(config: AdapterConfig, names: Sequence[str]) -> str:
    """A sentence with the names that are nearest to a target which matches none of the modules ``names``."""
    targets = config.target_modules
    first = targets if isinstance(targets, str) else next(iter(sorted(targets or [])), "")
    last = {name.rpartition(".")[2] for name in names if name}
    if not first or first == ALL_LINEAR or first in last:
        return ""  # the target is there: an exclusion or a choice of layers leaves nothing of it
    near = nearest(first, last | ({ALL_LINEAR} if isinstance(targets, str) else set()))
    return f" The nearest names to {first!r} in the model are {', '.join(map(repr, near))}."


def warn_of_unmatched(config: AdapterConfig, names: Sequence[str]) -> None:
    """Warn of entries of ``target_modules`` and ``modules_to_save`` that match none of the modules ``names``."""
    saved = [name for name in config.modules_to_save or [] if name not in ADDED]
    targets = sorted(config.target_modules) if isinstance(config.target_modules, set) else []
    for field, entries, dot in (("target_modules", targets, "."), ("modules_to_save", saved, "")):
        unmatched = [entry for entry in entries if not any(f".{name}".endswith(f"{dot}{entry}") for name in names)]
        if unmatched:
            warnings.warn(f"{field}: no module of the model is named {some_of(unmatched, 5)}", stacklevel=3)


def warn_of_shared(model: nn.Module, adapted: Iterable[str]) -> None:
    """Warn where merging into the layers named ``adapted`` changes a module beside them, which shares their weight."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and not name.endswith(".original_module"):  # which modules_to_save replace
                holders.setdefault(id(parameter), []).append(name.removesuffix(".base_layer"))
    names = set(adapted)
    for shared in holders.values():
        if len(shared) > 1 and names.intersection(shared):
            warnings.warn(
                f"{' and '.join(shared)} share one weight: merging adds each update to all of them. Load the model "
                "with tie_word_embeddings=False, or keep the adapter apart",
                stacklevel=4,
            )
