"""bfloat16 where the machine has instructions for it, single precision elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kravl.training.trainer import chosen_precision, multiplies_bfloat16

CPUINFO = Path("/proc/cpuinfo")
ASK = """
from kravl.training.trainer import chosen_precision
print(*[chosen_precision({"precision": p, "accelerator": "cpu"}) for p in ("auto", "bf16-mixed", "16-mixed")])
"""


@pytest.mark.long
def test_a_machine_without_bfloat16_computes_in_single_precision_and_says_so_to_who_asks_for_more() -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # its products then take this CPU for a common laptop's

    asked = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)

    assert asked.stdout.split() == ["32-true", "bf16-mixed", "16-mixed"]
    [warning] = asked.stderr.splitlines()
    assert warning.startswith("trainer.precision=bf16-mixed: this machine has no instructions for bfloat16")
    assert warning.endswith("trainer.precision=auto chooses what suits the machine")


@pytest.mark.skipif(not CPUINFO.exists() or "ONEDNN_MAX_CPU_ISA" in os.environ, reason="asks Linux")
def test_auto_is_bfloat16_where_the_system_lists_its_instructions(caplog: pytest.LogCaptureFixture) -> None:
    listed = "avx512_bf16" in CPUINFO.read_text() or " bf16" in CPUINFO.read_text()

    assert multiplies_bfloat16("cpu") == listed
    assert chosen_precision({"precision": "auto", "accelerator": "cpu"}) == ("bf16-mixed" if listed else "32-true")
    assert not caplog.records


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_auto_is_what_the_processor_can() -> None:
    assert multiplies_bfloat16("auto") == multiplies_bfloat16("cpu")
    assert chosen_precision({"precision": "auto", "accelerator": "gpu"}) == "32-true"


def test_any_other_precision_is_the_users() -> None:
    assert chosen_precision({}) == "32-true"
    assert chosen_precision({"precision": 64}) == 64
