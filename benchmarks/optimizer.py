"""A step of AdamW over what a method trains: PyTorch's fused kernel, which kravl uses, against its other forms.

python benchmarks/optimizer.py                     prints a table, then a JSON object in one line
python benchmarks/optimizer.py --device cuda
python benchmarks/optimizer.py --quick             checks that they agree; its figures mean nothing

Times are medians over rounds; every round has all forms, and ratios are medians of those within rounds. The floor
is the bytes that a step must move over the bandwidth at which a large tensor is scaled in place in the same round.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import COPIED, interleaved, ratio
from record import publish, record
from steps import METHODS, Setting, Steps, clip_of_width
from torch import Tensor

FORMS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
MOVED = 7  # tensors that a step reads or writes: weight, gradient and two moments, all but the gradient twice
SCALED = "a large tensor, scaled in place"  # as a step reads and writes: a copy would load its target as well
FULL = "full fine-tuning"


def tensors_of(method: str, model: str, device: str) -> list[Tensor]:
    """What the method trains of the model's two towers, each with a gradient."""
    steps = Steps(model, next(iter(METHODS)) if method == FULL else method, 3, 2, Setting(device))
    found = steps.parameters["kravl"] if method != FULL else steps.classifier.model.parameters()
    return [torch.randn_like(tensor, requires_grad=True) for tensor in found]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values and gradients, to be trained apart."""
    made = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    for number, tensor in enumerate(made):
        generator = torch.Generator(tensor.device).manual_seed(number)
        tensor.grad = torch.empty_like(tensor).normal_(generator=generator)
    return made


def measure(method: str, tensors: Sequence[Tensor], rounds: int) -> list[dict[str, Any]]:
    """A row for each form."""
    device = tensors[0].device.type
    sets = {name: copies(tensors) for name in FORMS}
    optimizers = {name: torch.optim.AdamW(sets[name], lr=1e-3, **form) for name, form in FORMS.items()}  # type: ignore[arg-type]
    for optimizer in optimizers.values():
        optimizer.step()
    for name in ("foreach", "fused"):
        torch.testing.assert_close(sets[name], sets["loop"], rtol=1e-5, atol=1e-6)
    buffer = torch.ones(COPIED[device] // 4, device=device)
    runs = {name: optimizer.step for name, optimizer in optimizers.items()}
    times = interleaved({SCALED: lambda: buffer.mul_(1.0), **runs}, rounds, device)
    count = sum(tensor.numel() for tensor in tensors)
    moved = MOVED * count / (2 * len(buffer))  # times that the buffer is moved
    return [
        {"method": method, "tensors": len(tensors), "numbers": count, "AdamW": name,
         "ms": 1e3 * statistics.median(times[name]), "x faster": ratio(times["loop"], times[name]),
         "floor %": 100 * moved * ratio(times[SCALED], times[name])}
        for name in FORMS
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with random weights")
    parser.add_argument("--methods", nargs="+", default=["KRAdapter", "LoRA", FULL])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="a small model, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.model, options.rounds = clip_of_width(64, 2), 1
    rows: list[dict[str, Any]] = []
    for method in options.methods:
        rows += measure(method, tensors_of(method, options.model, options.device), options.rounds)
    settings = {key: getattr(options, key) for key in ("model", "device", "rounds")}
    publish(record("A step of AdamW", rows, settings=settings), options.json)


if __name__ == "__main__":
    main()
