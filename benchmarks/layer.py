"""One adapted layer, forward and backward: kravl against full fine-tuning, the published layer and PEFT.

python benchmarks/layer.py                             prints a table, then a JSON object in one line
python benchmarks/layer.py --device cuda --dtype bfloat16
python benchmarks/layer.py --layers all                every method of kravl, beside PEFT's layer of it
python benchmarks/layer.py --quick                     checks itself on tiny layers; its figures mean nothing

Times are medians over rounds; every round has all layers, and ratios are medians of those within rounds. The floor of
a row is the operations that it does over the rate of a large matrix product in the same round, or, where that is more,
the bytes of its inputs and outputs over the measured bandwidth of a copy. PEFT's rows need PEFT
(pip install -e ".[bench]").
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from layers import FULL, MAIN, METHODS, OTHER, SINGLE, make_layers, ours, theirs
from measure import Floor, copy_bandwidth, operations, peak_bytes, ratio, saved_bytes
from record import add_options, publish, record
from torch import Tensor, nn

from kravl.adapters.workspace import release

SHAPES = ("3072x768", "768x3072", "768x768", "1024x1024", "2048x2048")  # out x in
TOKENS = (256, 788, 1024, 6304)
QUICK_SHAPES, QUICK_TOKENS = ("50x37", "37x50"), (8, 300)
MIB = 2**20


class Case:
    """Layers of one shape, with an input that needs a gradient, in fp32 or under autocast; ``labels`` are its row's."""

    def __init__(self, layers: dict[str, nn.Module], x: Tensor, dtype: torch.dtype, labels: dict[str, Any]) -> None:
        self.layers, self.dtype, self.labels, self.device = layers, dtype, labels, x.device.type
        self.x = x.requires_grad_()
        with torch.no_grad():
            self.towards_y = torch.randn_like(self.forward(layers["frozen"]))

    @classmethod
    def linear(cls, shape: str, tokens: int, device: str, dtype: torch.dtype, methods: Sequence[str] = MAIN) -> "Case":
        """Of a weight of ``shape`` OUTxIN and an input (tokens, in), for each of the ``methods``."""
        out, columns = (int(side) for side in shape.split("x"))
        like = torch.empty(0, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        x = torch.randn(tokens, columns).to(like)
        labels = {"shape": f"{out}x{columns}", "tokens": tokens}
        return cls(make_layers(out, columns, like, methods), x, dtype, labels)

    def forward(self, layer: nn.Module) -> Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype == torch.bfloat16):
            return layer(self.x)

    def step(self, layer: nn.Module) -> None:
        """Forward and backward; the gradients are dropped."""
        self.forward(layer).backward(self.towards_y)
        self.x.grad = None
        layer.zero_grad(set_to_none=True)

    def values(self, name: str) -> list[Tensor]:
        """`values_of` the layer ``name``."""
        return self.values_of(self.layers[name])

    def values_of(self, layer: nn.Module) -> list[Tensor]:
        """Output, and gradients of the input and of all that trains, these as one sorted vector."""
        y = self.forward(layer)
        x_grad, *grads = torch.autograd.grad(
            y, [self.x, *(p for p in layer.parameters() if p.requires_grad)], self.towards_y
        )
        return [y, x_grad, torch.cat([y.new_empty(0), *(grad.flatten() for grad in grads)]).sort().values]

    def least_bytes(self) -> int:
        """Of x, y, their gradients and twice the weight: what must be read or written at least once."""
        elements = 2 * (self.x.numel() + self.towards_y.numel() + next(self.layers["frozen"].parameters()).numel())
        return elements * self.towards_y.element_size()


def check(shape: str, tokens: int, device: str, methods: Sequence[str]) -> None:
    """That ours equals the published layer and PEFT's in float64, to rounding."""
    case = Case.linear(shape, tokens, device, torch.float64, methods)
    for method in methods:
        if theirs(method) in case.layers and method not in (*SINGLE, *OTHER):
            values, expected = case.values(ours(method)), case.values(theirs(method))
            torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)


def measure(
    case: Case, rounds: int, floor: Floor, bandwidth: float, compared: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row for each layer; "faster" is over the layer that ``compared`` names for it."""

    def step_of(layer: nn.Module) -> Callable[[], None]:
        return lambda: case.step(layer)

    runs = {name: step_of(layer) for name, layer in case.layers.items()}
    times = floor.beside(runs, rounds)
    rows = []
    for name, layer in case.layers.items():
        known = [case.x, *layer.parameters(), *layer.buffers()]
        done = operations(runs[name])
        spent = statistics.median(times[name])
        same = compared.get(name)
        release()  # what kravl keeps between calls counts as well
        peak = peak_bytes(runs[name], case.device)
        rows.append({
            **case.labels, "layer": name, "ms": 1e3 * spent,
            "/ frozen": ratio(times[name], times["frozen"]), "/ full": ratio(times[name], times[FULL]),
            "faster": ratio(times[same], times[name]) if same in times else None,
            "GFLOP": done / 1e9, "floor %": floor.share(times, name, done, case.least_bytes() / bandwidth),
            "saved MiB": saved_bytes(lambda layer=layer: case.forward(layer), known) / MIB,
            "peak MiB": peak / MIB,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="OUTxIN")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS, help="rows of the input; 32 x 197 is 6304")
    parser.add_argument("--layers", nargs="+", default=MAIN, choices=[*METHODS, "all"], metavar="METHOD")
    add_options(parser, 9, "tiny layers, one round, equality in float64")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    methods = list(METHODS) if options.quick or "all" in options.layers else options.layers
    if options.quick:
        options.shapes, options.tokens, options.rounds = QUICK_SHAPES, QUICK_TOKENS, 1
        for shape in options.shapes:
            for tokens in options.tokens:
                check(shape, tokens, options.device, methods)
    dtype = getattr(torch, options.dtype)
    floor, bandwidth = Floor(options.device, dtype), copy_bandwidth(options.device, options.rounds)
    compared = {ours(method): theirs(method) for method in methods}
    rows: list[dict[str, Any]] = []
    for shape in options.shapes:
        for tokens in options.tokens:
            case = Case.linear(shape, tokens, options.device, dtype, methods)
            rows += measure(case, options.rounds, floor, bandwidth, compared)
    settings = {"device": options.device, "dtype": options.dtype, "rounds": options.rounds}
    facts = {**floor.facts(), "copy_gb_per_s": bandwidth / 1e9}
    publish(record("One layer, forward and backward", rows, settings=settings, floor=facts), options.json)


if __name__ == "__main__":
    main()
