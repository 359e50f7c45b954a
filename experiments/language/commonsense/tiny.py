"""What --try runs on: a random Llama of two layers, a tokenizer made of its few texts, two tasks of four items."""

import json
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ITEMS = [
    ("Can a fish swim?", "yes", "no"),
    ("Is ice colder than fire?", "yes", "no"),
    ("Can a stone read?", "no", "yes"),
    ("Is the sun square?", "no", "yes"),
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{[right, wrong]}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


def tiny_model() -> tuple[nn.Module, Any, list[dict[str, str]]]:
    """Model, tokenizer and instructions."""
    items = [{"instruction": question, "input": "", "output": right} for question, right, _ in ITEMS] * 8
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    texts = [text for item in ITEMS for text in item]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=120, special_tokens=special))
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **ends, vocab_size=len(fast))), fast, items


def tiny_tasks(folder: Path) -> tuple[list[str], TaskManager]:
    """Two tasks of lm-eval with the items in a file."""
    lines = [json.dumps(dict(zip(("question", "right", "wrong"), item, strict=True))) for item in ITEMS]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("try_one", "try_two"):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=folder / "items.jsonl"))
    return ["try_one", "try_two"], TaskManager(include_path=str(folder))
