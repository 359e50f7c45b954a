"""A few-shot task for PEFT's method comparison: CLIP adapted to a data set of images, in and out of domain.

    python run.py -v experiments/kradapter/clip-vit-b-32-default/
    python run.py --try experiments/kradapter/clip-vit-b-32-default/     # a random CLIP on handwritten digits; CPU

Folders, parameter files and the result file are those of PEFT's other tasks: ``experiments/METHOD/NAME`` with an
``adapter_config.json`` and, where it differs from ``default_training_params.json``, a ``training_params.json``;
results/METHOD--NAME.json. Class names are embedded by the text tower in each step, which is adapted as well.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from data import Images, load_images, small_digits
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, get_peft_model
from record import TrainConfig, result_of, train_config
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel, get_cosine_schedule_with_warmup
from try_models import random_clip

import kravl.peft  # noqa: F401 (adds KRADAPTER; not needed once PEFT has it)

HERE = Path(__file__).parent


@dataclass
class Run:
    """A model with adapters, its data, and what a training has to tell."""

    model: nn.Module
    prompts: dict[str, torch.Tensor]
    train: Images
    valid: Images
    test: Images
    config: TrainConfig
    device: str

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Cosine similarity of images and class names, times the model's scale: (n, classes)."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.use_amp and self.device == "cuda"):
            out = self.model(pixel_values=pixels.to(self.device), **self.prompts)
        return out.logits_per_image.float()

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        self.model.eval()
        hits = [
            (self.logits(pixels).argmax(-1).cpu() == labels).sum().item()
            for pixels, labels in images.batches(self.config.batch_size_eval)
        ]
        return sum(hits) / len(images)


def fit(run: Run) -> tuple[list[dict[str, Any]], list[int], float]:
    """Train; the metrics at each evaluation, the memory in each step, and the seconds of the steps."""
    config, parameters = run.config, [p for p in run.model.parameters() if p.requires_grad]
    optimiser = getattr(torch.optim, config.optimizer_type)(parameters, **config.optimizer_kwargs)
    steps = config.max_steps
    schedule = get_cosine_schedule_with_warmup(optimiser, steps // 10, steps) if config.lr_scheduler else None
    metrics, memory, losses, seconds = [], [], [], 0.0
    batches = run.train.endless(config.batch_size, config.seed)
    begin_all = time.perf_counter()
    for step in range(1, steps + 1):
        begin = time.perf_counter()
        run.model.train()
        pixels, labels = next(batches)
        loss = F.cross_entropy(run.logits(pixels), labels.to(run.device))
        loss.backward()
        if config.grad_norm_clip:
            torch.nn.utils.clip_grad_norm_(parameters, config.grad_norm_clip)
        optimiser.step()
        optimiser.zero_grad()
        if schedule:
            schedule.step()
        losses.append(loss.item())
        memory.append(torch.cuda.memory_reserved() if run.device == "cuda" else 0)
        seconds += time.perf_counter() - begin
        if step % config.eval_steps == 0:
            recent = losses[-config.eval_steps :]
            metrics.append({
                "step": step, "valid accuracy": run.accuracy(run.valid), "train loss": sum(recent) / len(recent),
                "train samples": step * config.batch_size, "train time": seconds,
                "elapsed time": time.perf_counter() - begin_all,
            })  # fmt: skip
    last = {"step": steps, "test accuracy": run.accuracy(run.test), "train loss": losses[-1]}
    metrics.append(last | {"train samples": steps * config.batch_size})
    return metrics, memory, seconds


def prepared(path: Path, config: TrainConfig, tries: bool) -> tuple[Run, PeftConfig]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = json.loads((path / "adapter_config.json").read_text())
    peft_config = PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]].from_peft_type(**settings)
    torch.manual_seed(config.seed)
    if tries:
        model, prompts, names = random_clip()
        train, valid, test = small_digits(config)
    else:
        model = CLIPModel.from_pretrained(
            config.model_id, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
        )
        train, valid, test, names = load_images(config)
        tokenizer = AutoTokenizer.from_pretrained(config.model_id)
        texts = [config.prompt_template.format(name) for name in names]
        prompts = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    if config.use_gc:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    model = get_peft_model(model.to(device), peft_config, autocast_adapter_dtype=config.autocast_adapter_dtype)
    model = torch.compile(model) if config.compile else model
    prompts = {name: tensor.to(device) for name, tensor in prompts.items()}
    return Run(model, prompts, train, valid, test, config, device), peft_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="experiments/METHOD/NAME")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the result as well")
    parser.add_argument("--try", action="store_true", dest="tries", help="a random model and digits, 20 steps")
    parser.add_argument("--results", type=Path, help="folder; results/, or temporary_results/ with --try")
    options = parser.parse_args()
    start, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    config = train_config(options.path, max_steps=20, eval_steps=10) if options.tries else train_config(options.path)
    run, peft_config = prepared(options.path, config, options.tries)
    metrics, memory, seconds = fit(run)
    with tempfile.TemporaryDirectory() as folder:
        run.model.save_pretrained(folder)
        file_size = (Path(folder) / "adapter_model.safetensors").stat().st_size
    name = "/".join(options.path.resolve().parts[-2:])
    record = result_of(name, start, config, peft_config, run.model, metrics, memory)
    record["run_info"]["total_time"] = time.perf_counter() - begin
    record["train_info"] |= {"train_time": seconds, "file_size": file_size}
    folder = options.results or HERE / ("temporary_results" if options.tries else "results")
    folder.mkdir(exist_ok=True)
    (folder / f"{name.replace('/', '--')}.json").write_text(json.dumps(record, indent=2) + "\n")
    if options.verbose:
        print(json.dumps(record["train_info"], indent=2))


if __name__ == "__main__":
    main()
