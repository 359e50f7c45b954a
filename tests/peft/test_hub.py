"""A KRAdapter goes to the Hub and comes back by PEFT's own calls, through the real client and a local stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub
import pytest

pytestmark = pytest.mark.long

BASE = """
import sys
sys.path.insert(0, {support!r})
import torch
from peft_models import llama
torch.manual_seed(0)
model, words = llama(), torch.arange(12).reshape(2, 6)
from peft import PeftConfig, PeftModel, get_peft_model
"""
PUSH = """
import kravl.peft
config = kravl.peft.KRAdapterConfig(target_modules="all-linear", task_type="CAUSAL_LM", init_weights=False)
model = get_peft_model(model, config).eval()
model.push_to_hub("me/adapter", private=True)
"""
LOAD = """
import kravl.peft
assert type(PeftConfig.from_pretrained("me/adapter")) is kravl.peft.KRAdapterConfig
model = PeftModel.from_pretrained(model, "me/adapter").eval()
"""
PRINT = "print(model(words).logits.detach().double().flatten().tolist())"
ONLY_PEFT = 'PeftModel.from_pretrained(model, "me/adapter")'


def run(program: str, there: hub.Hub, home: Path) -> subprocess.CompletedProcess[str]:
    """``program`` after the base model, in a process of its own whose Hub is ``there`` and whose cache is ``home``."""
    support = str(Path(__file__).parents[1] / "support")
    hubs = {"HF_ENDPOINT": there.url, "HF_HOME": str(home), "HF_TOKEN": "hf_of_a_test", "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **hubs, "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BASE.format(support=support) + program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_an_adapter_is_pushed_and_loaded_from_the_hub_with_equal_logits(tmp_path):
    with hub.serve() as there:
        pushed = run(PUSH + PRINT, there, tmp_path / "mine")
        loaded = run(LOAD + PRINT, there, tmp_path / "yours")
        without = run(ONLY_PEFT, there, tmp_path / "yours")

    assert pushed.returncode == 0, pushed.stderr[-2000:]
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    assert loaded.stdout == pushed.stdout
    sent = there.repositories["me/adapter"]
    assert there.visibility["me/adapter"] == "private"
    assert sorted(sent) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert json.loads(sent["adapter_config.json"])["peft_type"] == "KRADAPTER"
    assert without.stderr.splitlines()[-1] == "KeyError: 'KRADAPTER'"  # what the docs explain
