"""Saved tensors of another kind than the model's are refused, not cast: a rounded adapter is another adapter."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kravl.runtime.errors import InputError, some_of

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what a precision of Trainer may have written
# precisions of Trainer in which weights themselves are kept
TRUE = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64, "64": torch.float64}


def refuse_other_dtypes(what: str, model: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise InputError where a tensor of ``saved`` has no number format that training the model's could have written.

    Between the usual floating-point formats a tensor may change, as it does with ``trainer.precision``.

    Args:
        model, saved: tensors of the same names.
    """
    wrong = [name for name, tensor in model.items() if not _fits(tensor.dtype, saved[name].dtype)]
    if wrong:
        listed = [f"{name} is {_name(saved[name])}, not {_name(model[name])}" for name in wrong]
        raise InputError(f"{what} holds tensors of another kind: {some_of(listed, 3, '; ')}")


def _fits(model: torch.dtype, saved: torch.dtype) -> bool:
    return saved in FLOATS if model in FLOATS else saved == model


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
