"""One adapted convolution, forward and backward: kravl against full fine-tuning, plain autograd and PEFT.

python benchmarks/conv.py                              prints a table, then a JSON object in one line
python benchmarks/conv.py --device cuda --dtype bfloat16
python benchmarks/conv.py --quick                      checks itself on tiny maps; its figures mean nothing

Shapes are OUTxINxKERNEL@SIZE of square kernels and maps; those of the default are convolutions of RN50 at 224 pixels.
Columns are those of layer.py. PEFT's row needs PEFT (pip install -e ".[bench]").
"""

import argparse
import copy
from functools import partial
from typing import Any

import torch
from layer import Case, measure
from layers import FULL, away_from_zero, has_peft, ours, theirs
from measure import Floor, copy_bandwidth
from record import add_options, publish, record
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kravl.adapters.base import Adapter
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA

SHAPES = ("64x64x3@56", "256x64x1@56", "256x256x3@14", "1024x256x1@14", "512x512x3@7")
QUICK_SHAPES, QUICK_BATCH = ("10x6x3@5", "12x20x1@3"), 2
PLAIN = "KRAdapter, plain autograd"  # what does not take an autograd function of its own
KRA, LORA, PEFT_LORA = ours("KRAdapter"), ours("LoRA r16"), theirs("LoRA r16")
COMPARED = {LORA: PEFT_LORA, KRA: PLAIN}
ADAPTERS = {KRA: KRAdapter, LORA: partial(LoRA, rank=16, alpha=16)}


class Updated(nn.Module):
    """A parametrization: the kernel plus the adapter's update."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel + self.adapter.update(kernel.flatten(1)).view(kernel.shape)


def make_case(shape: str, batch: int, device: str, dtype: torch.dtype) -> Case:
    """The layers of a ``shape``, all with the same kernel and factors, and a ``batch`` of maps."""
    sides, size = shape.split("@")
    out, columns, width = (int(side) for side in sides.split("x"))
    like = torch.empty(0, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    base = nn.Conv2d(columns, out, width, padding=width // 2, bias=False).requires_grad_(False)
    layers: dict[str, nn.Module] = {"frozen": base, FULL: copy.deepcopy(base).requires_grad_(True)}
    for name, make in ADAPTERS.items():
        model = nn.Sequential(copy.deepcopy(base))
        away_from_zero(inject(model, make, ["0"]).adapters["0"])
        layers[name] = model[0]
    kra, lora = (layers[name].adapters[0] for name in ADAPTERS)
    plain = copy.deepcopy(base)
    layers[PLAIN] = parametrize.register_parametrization(plain, "weight", Updated(copy.deepcopy(kra)))
    if has_peft():
        from peft_layers import peft_conv_lora

        layers[PEFT_LORA] = peft_conv_lora(copy.deepcopy(base), lora)
    x, positions = torch.randn(batch, columns, int(size), int(size)), batch * int(size) ** 2
    placed = {name: layer.to(like) for name, layer in layers.items()}
    return Case(placed, x.to(like), dtype, {"shape": shape, "positions": positions})


def check(shape: str, batch: int, device: str) -> None:
    """That ours equals plain autograd and PEFT's layer in float64, to rounding."""
    case = make_case(shape, batch, device, torch.float64)
    for name, other in COMPARED.items():
        if name in case.layers and other in case.layers:
            torch.testing.assert_close(case.values(name), case.values(other), rtol=1e-12, atol=1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="OUTxINxKERNEL@SIZE")
    parser.add_argument("--batch", type=int, default=32)
    add_options(parser, 9, "tiny maps, one round, equality in float64")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.quick:
        options.shapes, options.batch, options.rounds = QUICK_SHAPES, QUICK_BATCH, 1
        for shape in options.shapes:
            for batch in (options.batch, 40):
                check(shape, batch, options.device)
    dtype = getattr(torch, options.dtype)
    floor, bandwidth = Floor(options.device, dtype), copy_bandwidth(options.device, options.rounds)
    rows: list[dict[str, Any]] = []
    for shape in options.shapes:
        case = make_case(shape, options.batch, options.device, dtype)
        rows += measure(case, options.rounds, floor, bandwidth, COMPARED)
    settings = {key: getattr(options, key) for key in ("device", "dtype", "batch", "rounds")}
    facts = {**floor.facts(), "copy_gb_per_s": bandwidth / 1e9}
    publish(record("One convolution, forward and backward", rows, settings=settings, floor=facts), options.json)


if __name__ == "__main__":
    main()
