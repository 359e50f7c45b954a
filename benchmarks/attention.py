"""Attention blocks of ViT-B in bf16: kravl's against nn.MultiheadAttention's, frozen and trained.

python benchmarks/attention.py            prints a table, then a JSON object in one line
python benchmarks/attention.py --device cuda
python benchmarks/attention.py --quick    checks itself on a tiny block; its figures mean nothing

Frozen: a forward pass without gradient. Trained: forward and backward with KRAdapter on q, k and v; with "torch's
backward" the gradient of the attention itself is PyTorch's, else kravl's for short sequences, which is for CPUs alone.
The floor is the operations over the measured rate of a large bf16 product.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from measure import Floor, operations, ratio
from record import publish, record
from torch import Tensor, nn

from kravl.adapters.injection import attention
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter

TOKENS = (50, 77, 128, 197)  # ViT-B/32, a text tower, the longest that kravl treats as short, ViT-B/16


class Block:
    """One attention layer on (images, tokens, width), under bf16 autocast."""

    def __init__(self, images: int, tokens: int, width: int, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.x = torch.randn(images, tokens, width).to(device)
        attention = nn.MultiheadAttention(width, width // 64 or 1, batch_first=True)
        self.plain = nn.ModuleDict({"attn": attention}).to(device)
        self.plain.requires_grad_(False)
        self.frozen, self.trained = copy.deepcopy(self.plain), copy.deepcopy(self.plain)
        inject(self.frozen, KRAdapter, [])  # swaps the layer, adapts nothing
        inject(self.trained, KRAdapter, ["attn.qkv"])

    def __call__(self, model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(self.x.device.type, torch.bfloat16):
            return model["attn"](x, x, x, need_weights=False)[0]

    def forward(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return self(model, self.x)

    def step(self) -> None:
        self(self.trained, self.x.clone().requires_grad_()).float().square().sum().backward()
        self.trained.zero_grad(set_to_none=True)

    def step_with_torch(self) -> None:
        with patch.object(attention, "is_short", lambda q: False):
            self.step()

    def runs(self) -> dict[str, Callable[[], object]]:
        return {
            "frozen, torch": lambda: self.forward(self.plain),
            "frozen, kravl": lambda: self.forward(self.frozen),
            "trained, torch's backward": self.step_with_torch,
            "trained, kravl": self.step,
        }


def measure(block: Block, rounds: int, floor: Floor) -> list[dict[str, Any]]:
    runs = block.runs()
    times = floor.beside(runs, rounds)
    rows = []
    for name, run in runs.items():
        reference = "frozen, torch" if "frozen" in name else "trained, torch's backward"
        rows.append({
            "tokens": block.x.shape[1], "attention": name, "ms": 1e3 * statistics.median(times[name]),
            "faster": ratio(times[reference], times[name]), "GFLOP": operations(run) / 1e9,
            "floor %": floor.share(times, name, operations(run)),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="a tiny block, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.images, options.width, options.tokens, options.rounds = 2, 64, (5, 130), 1
    floor = Floor(options.device, torch.bfloat16)
    rows: list[dict[str, Any]] = []
    for tokens in options.tokens:
        block = Block(options.images, tokens, options.width, options.device)
        torch.testing.assert_close(block.forward(block.frozen), block.forward(block.plain), rtol=0.02, atol=0.02)
        rows += measure(block, options.rounds, floor)
    settings = {"images": options.images, "width": options.width, "rounds": options.rounds, "dtype": "bfloat16"}
    publish(record("Attention in bf16", rows, settings=settings, floor=floor.facts()), options.json)


if __name__ == "__main__":
    main()
