"""A folder that PEFT saved, which may be anyone's: its config and tensors, or one line that says what is wrong."""

import math
from pathlib import Path
from pickle import UnpicklingError

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from peft.utils.save_and_load import load_peft_weights
from safetensors import SafetensorError
from torch import Tensor

from kravl.runtime.errors import InputError, first_line, unknown
from kravl.runtime.files import no_folder, read_json, refuse_endless

MAX_CONFIG = 2**20  # bytes
DAMAGE = (SafetensorError, UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError)


def read_saved(folder: Path, dtype: torch.dtype) -> tuple[PeftConfig, dict[str, Tensor]]:
    """The config and the tensors in ``folder``, which is on this disk: the hub is not asked.

    Args:
        dtype: of the model that they are for; what has more digits than single precision is not rounded to it.

    Raises:
        InputError: a file is missing or damaged, a method that PEFT has not, a setting that it does not take, or
            tensors that are not finite numbers.
    """
    if not folder.is_dir():
        raise InputError(no_folder(folder))
    return _config(folder), _tensors(folder, dtype)


def _config(folder: Path) -> PeftConfig:
    path = folder / CONFIG_NAME
    content = read_json(path, MAX_CONFIG)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    method = content.get("peft_type")
    legal = {str(each.value): each for each in PEFT_TYPE_TO_CONFIG_MAPPING}
    if method not in legal:
        raise unknown(f"peft_type in {path}", method, legal)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no config of PEFT: {first_line(error)}") from error
    alpha = config.lora_alpha if isinstance(config, LoraConfig) else 0
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"{path}: lora_alpha must be a finite number, not {str(alpha)[:80]!r}")
    return config


def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    path = next((folder / name for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME) if (folder / name).exists()), None)
    if path is None:
        raise InputError(f"{folder} holds neither {SAFETENSORS_WEIGHTS_NAME} nor {WEIGHTS_NAME}")
    refuse_endless(path)
    try:
        tensors = dict(load_peft_weights(str(folder), device="cpu"))
    except DAMAGE as error:
        raise InputError(f"{path} is damaged, or holds more than tensors: {first_line(error)}") from error
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(
                f"{path}: {str(name)[:80]!r} is {kind}; the factors of an adapter are floating-point numbers"
            )
        if tensor.dtype == torch.float64 != dtype:
            raise InputError(
                f"{path}: {name[:80]!r} is in double precision, and the model is {dtype}; convert the model"
            )
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name[:80]!r} has values that are infinite or no numbers")
    return tensors
