"""Which precision a run computes in: bfloat16 where its device multiplies it in hardware."""

import logging
import platform
from collections.abc import Mapping
from typing import Any

import torch

AUTO, HALF, SINGLE = "auto", "bf16-mixed", "32-true"
X86 = ("x86_64", "AMD64")

log = logging.getLogger(__name__)


def chosen_precision(settings: Mapping[str, Any]) -> Any:
    """``precision`` of these settings of Trainer, where auto is bf16-mixed on a device that has it, else 32-true.

    On a CPU without instructions for it a product in bfloat16 takes 40 to 500 times as long as in single precision
    (https://github.com/pytorch/pytorch/issues/146508); who asks for that is told.
    """
    precision, accelerator = settings.get("precision", SINGLE), str(settings.get("accelerator", AUTO))
    if precision == AUTO:
        return HALF if multiplies_bfloat16(accelerator) else SINGLE
    if str(precision).startswith("bf16") and not multiplies_bfloat16(accelerator):
        log.warning(
            "trainer.precision=%s: this machine has no instructions for bfloat16 and takes many times as long as with "
            "%s; trainer.precision=%s takes what suits the machine",
            precision,
            SINGLE,
            AUTO,
        )
    return precision


def multiplies_bfloat16(accelerator: str) -> bool:
    """Whether the device that Trainer takes for ``accelerator`` (auto, cpu, gpu, ...) has instructions for it."""
    if accelerator in (AUTO, "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator != "cpu" and (accelerator != AUTO or torch.backends.mps.is_available()):
        return False
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    return platform.machine() not in X86 or torch.cpu._is_avx512_bf16_supported()  # AVX512 alone emulates it
