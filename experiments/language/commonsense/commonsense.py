"""Commonsense reasoning with a language model, by the protocol of the KRAdapter lineage, scored by lm-eval.

    pip install -e '.[language]'
    python experiments/language/commonsense/commonsense.py --model meta-llama/Meta-Llama-3-8B \
        --train commonsense_15k.json --method KRAdapter --out runs/llama3-kra
    python experiments/language/commonsense/commonsense.py --try      # a random Llama of two layers, four items; CPU

Trains one epoch on instructions and evaluates BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC-easy, ARC-challenge and
OBQA without examples in the prompt. --train is a JSON list of {"instruction", "input", "output"}, as LLM-Adapters'
commonsense_15k.json and commonsense_170k.json are.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict
from peft import LoraConfig, PeftConfig, RandLoraConfig, VeraConfig, get_peft_model
from tiny import tiny_model, tiny_tasks
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from kravl.peft import KRAdapterConfig
from kravl.runtime.errors import InputError, first_line

TASKS = ("boolq", "piqa", "social_iqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
# RandLoRA's scripts (facts and hyper-parameters, not code): adapted matrices, dropout, batch, length, warm-up, rates
TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
DROPOUT, BATCH, CUTOFF, WARM_UP = 0.05, 16, 256, 100
RATES = {"VeRA": 1e-2}
RATE = 1e-4
METHODS: Mapping[str, Any] = {
    "KRAdapter": lambda **where: KRAdapterConfig(dropout=DROPOUT, **where),
    "LoRA": lambda **where: LoraConfig(r=32, lora_alpha=64, lora_dropout=DROPOUT, **where),
    "RandLoRA": lambda **where: RandLoraConfig(r=15, randlora_alpha=300, randlora_dropout=DROPOUT, **where),
    "VeRA": lambda **where: VeraConfig(r=256, vera_dropout=DROPOUT, **where),
}


def prompt(item: Mapping[str, str]) -> str:
    return "\n\n".join(part for part in (item["instruction"], item.get("input", "")) if part) + "\n\n"


def batches(items: list[dict[str, str]], tokenizer: Any, seed: int) -> list[dict[str, torch.Tensor]]:
    """Padded batches in a drawn order; the prompt is in the labels, as in the lineage's scripts."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    texts = [prompt(items[i]) + items[i]["output"] + tokenizer.eos_token for i in order]
    result = []
    for begin in range(0, len(texts), BATCH):
        some = texts[begin : begin + BATCH]
        batch = tokenizer(some, padding=True, truncation=True, max_length=CUTOFF, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        result.append({"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels})
    return result


def train(model: nn.Module, data: list[dict[str, torch.Tensor]], rate: float, device: str) -> list[float]:
    """One epoch of AdamW without weight decay, linear warm-up and decay; the losses."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimiser, min(WARM_UP, len(data) // 2), len(data))
    losses = []
    model.train()
    for batch in data:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return losses


def evaluate(
    model: nn.Module, tokenizer: Any, tasks: list[str], manager: TaskManager, limit: int | None
) -> dict[str, Any]:
    """Accuracy of each task: the answer with the highest likelihood, length-normalised where lm-eval has that too."""
    scored = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=8)
    results = lm_eval.simple_evaluate(scored, tasks=tasks, task_manager=manager, num_fewshot=0, limit=limit)
    return {task: {k: v for k, v in values.items() if "stderr" not in k} for task, values in results["results"].items()}


def instructions(path: Path) -> list[dict[str, str]]:
    """The instructions in a file.

    Raises:
        InputError: there is no such file, or it is no JSON list of instructions.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--train {str(path)!r} cannot be read: {first_line(error)}") from error
    listed = isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    if not listed or not all({"instruction", "output"} <= item.keys() for item in items):
        raise InputError(f"--train {str(path)!r} is not a list of objects with instruction, input and output")
    return items


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder of a causal language model")
    parser.add_argument("--train", type=Path, help="JSON list of instructions")
    parser.add_argument("--out", type=Path, help="folder for adapter and results.json")
    parser.add_argument("--method", choices=METHODS, default="KRAdapter")
    parser.add_argument("--rate", type=float, help=f"learning rate; {RATE:g}, VeRA {RATES['VeRA']:g}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--try", action="store_true", dest="tries", help="a random model and tasks of this folder")
    options = parser.parse_args()
    if not options.tries and not (options.model and options.train and options.out):
        parser.error("--model, --train and --out are needed, or --try")
    return options


def pretrained(name: str, device: str) -> tuple[nn.Module, Any]:
    """Model and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16 if device == "cuda" else None), tokenizer


def run(options: argparse.Namespace, folder: Path) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.tries:
        out, (model, tokenizer, items), (tasks, manager) = options.out or folder, tiny_model(), tiny_tasks(folder)
    else:
        out, items, tasks, manager = options.out, instructions(options.train), list(TASKS), TaskManager()
    out.mkdir(parents=True, exist_ok=True)
    get_task_dict(tasks, manager)  # fetched here, since one that cannot be would lose hours of training
    if not options.tries:
        model, tokenizer = pretrained(options.model, device)
    config: PeftConfig = METHODS[options.method](target_modules=list(TARGETS), task_type="CAUSAL_LM")
    adapted = get_peft_model(model.to(device), config)
    rate = options.rate or RATES.get(options.method, RATE)
    losses = train(adapted, batches(items, tokenizer, options.seed), rate, device)
    adapted.save_pretrained(str(out))
    scores = evaluate(adapted, tokenizer, tasks, manager, options.limit)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    record = {"method": options.method, "rate": rate, "trainable": trainable, "losses": losses, "scores": scores}
    (out / "results.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(record))


def main() -> None:
    options = parsed()
    torch.manual_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(options, Path(folder))
        except (InputError, OSError) as error:  # OSError: a model or a benchmark that cannot be fetched
            raise SystemExit(f"error: {first_line(error)}") from error


if __name__ == "__main__":
    main()
