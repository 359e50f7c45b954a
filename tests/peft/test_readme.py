"""The examples of the room's README run, on a small random Llama."""

import re
from pathlib import Path

import peft_models

TEXT = (Path(__file__).parents[2] / "kravl/peft/README.md").read_text()


def test_the_examples_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = peft_models.llama()
    model.save_pretrained(tmp_path / "llama")
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    for example in examples:
        exec(example.replace("meta-llama/Llama-3.2-1B", str(tmp_path / "llama")), names)

    assert len(examples) == 2
    assert "trainable params: 17,152 " in capsys.readouterr().out
    assert len(names["adapters"].adapters) == 4
    assert [path.name for path in sorted((tmp_path / "for_peft").iterdir())] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
