"""A training step of transformers models with adapters: KRAdapter in PEFT against PEFT's own methods.

python benchmarks/peft_step.py                         prints a table, then a JSON object in one line
python benchmarks/peft_step.py --quick                 checks itself on tiny models; its figures mean nothing

Forward and backward of GPT-2's and Llama's blocks, all linear layers adapted, in one sequence of --tokens. LoRA,
RandLoRA, DoRA and HiRA have KRAdapter's number of parameters on square matrices (RandLoRA fewer on the others), VeRA
has its paper's rank. Times are medians over rounds; every round has all methods, and
ratios are medians of those within rounds. Saved is what the graph keeps for the backward pass beyond parameters,
each storage once. Needs PEFT (pip install -e ".[bench]").
"""

import argparse
import copy
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from measure import graph_bytes, interleaved, peak_bytes, ratio
from peft import HiraConfig, LoraConfig, PeftConfig, RandLoraConfig, VeraConfig, get_peft_model
from record import add_options, publish, record
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from kravl.adapters.workspace import release
from kravl.peft import KRAdapterConfig

MIB = 2**20
FROZEN, KRADAPTER, LORA = "frozen", "KRAdapter", "LoRA"
TOKENS = (256, 2048)


def gpt2(width: int, layers: int, tokens: int) -> nn.Module:
    """Blocks of GPT-2 (Conv1D, the fused qkv), without dropout."""
    config = GPT2Config(n_embd=width, n_layer=layers, n_head=width // 64 or 1, n_positions=tokens, vocab_size=2)
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    return GPT2Model(config)


def llama(width: int, layers: int, tokens: int) -> nn.Module:
    """Blocks of Llama (q, k, v, o, gate, up, down), its MLP 8/3 as wide."""
    config = LlamaConfig(
        hidden_size=width, intermediate_size=8 * width // 3, num_hidden_layers=layers, vocab_size=2,
        num_attention_heads=width // 64 or 1, max_position_embeddings=tokens, pad_token_id=None, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    return LlamaModel(config)


MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {"GPT-2": gpt2, "Llama": llama}


def methods(width: int) -> dict[str, PeftConfig | None]:
    """The config of each method; None is the frozen base."""
    rank = _rank(width)
    everywhere: dict[str, Any] = {"target_modules": "all-linear"}
    return {
        FROZEN: None,
        KRADAPTER: KRAdapterConfig(**everywhere),
        LORA: LoraConfig(r=rank, lora_alpha=2 * rank, **everywhere),
        "RandLoRA": RandLoraConfig(r=max(1, rank // 2), randlora_alpha=10 * rank, **everywhere),
        "VeRA": VeraConfig(r=256, **everywhere),
        "DoRA": LoraConfig(r=rank, lora_alpha=2 * rank, use_dora=True, **everywhere),
        "HiRA": HiraConfig(r=rank, **everywhere),
    }


def _rank(width: int) -> int:
    """Of the LoRA with as many parameters on a square matrix as KRAdapter."""
    adapter = KRAdapterConfig().new_adapter(width, width)
    return sum(parameter.numel() for parameter in adapter.parameters()) // (2 * width)


class Case:
    """The models of one architecture with each method, and an input whose gradient is taken."""

    def __init__(self, name: str, options: argparse.Namespace, tokens: int) -> None:
        self.device, self.dtype = options.device, getattr(torch, options.dtype)
        width = options.width
        torch.manual_seed(0)
        base = MODELS[name](width, options.layers, tokens).to(self.device).train().requires_grad_(False)
        self.models: dict[str, nn.Module] = {}
        for method, config in methods(width).items():
            if method not in (FROZEN, LORA, *options.methods):
                continue
            model = copy.deepcopy(base)
            if config is not None:
                with warnings.catch_warnings(action="ignore"):
                    model = get_peft_model(model, config)
            self.models[method] = model.train()
        self.x = torch.randn(1, tokens, width, device=self.device, requires_grad=True)
        self.base = base

    def forward(self, model: nn.Module) -> Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype == torch.bfloat16):
            return model(inputs_embeds=self.x, use_cache=False).last_hidden_state

    def step(self, model: nn.Module) -> None:
        """Forward and backward; the gradients are dropped."""
        self.forward(model).float().square().mean().backward()
        self.x.grad = None
        model.zero_grad(set_to_none=True)


def check(case: Case) -> None:
    """That each method starts at the base."""
    expected = case.forward(case.base)
    for method, model in case.models.items():
        if method != "VeRA":  # starts at the base up to its small initial vector
            torch.testing.assert_close(case.forward(model), expected, rtol=1e-4, atol=1e-4)


def measure(name: str, case: Case, rounds: int) -> list[dict[str, Any]]:
    """A row for each method."""
    runs = {method: (lambda model=model: case.step(model)) for method, model in case.models.items()}
    times = interleaved(runs, rounds, case.device)
    rows = []
    for method, model in case.models.items():
        release()  # what kravl keeps between calls counts as well
        known = [case.x, *model.parameters(), *model.buffers()]
        rows.append({
            "model": name, "tokens": case.x.shape[1], "method": method,
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "ms": 1e3 * statistics.median(times[method]),
            "/ LoRA": ratio(times[method], times[LORA]), "/ frozen": ratio(times[method], times[FROZEN]),
            "saved MiB": graph_bytes(lambda model=model: case.forward(model), known) / MIB,
            "peak MiB": peak_bytes(runs[method], case.device) / MIB,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--methods", nargs="+", choices=methods(64), default=list(methods(64)), help="beside LoRA and the frozen base"
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=2)
    add_options(parser, 5, "tiny models, one round, equality at the start")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' of its own names
    if options.quick:
        options.tokens, options.width, options.layers, options.rounds = (40,), 64, 1, 1
    rows: list[dict[str, Any]] = []
    for name in options.models:
        for tokens in options.tokens:
            case = Case(name, options, tokens)
            if options.quick:
                check(case)
            rows += measure(name, case, options.rounds)
    facts = {name: getattr(options, name) for name in ("width", "layers", "device", "dtype", "rounds")}
    publish(record("A step of transformers models with PEFT's methods", rows, settings=facts), options.json)


if __name__ == "__main__":
    main()
