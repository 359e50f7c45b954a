"""A training step, a frozen forward and a layer taken apart: the time of each kind of operation, and what is between.

python benchmarks/parts.py                                 kravl's step at four blocks, layers at 256 tokens; fp32, bf16
python benchmarks/parts.py --dtypes float32 --blocks 12 --tokens
python benchmarks/parts.py --quick                         checks itself; its figures mean nothing

The profiler says how long each operation took itself, without those that it called; what it adds to an operation, a
few microseconds, counts as well. ``floor %`` is the rate of a part's matrix products in percent of a large one's: were
there nothing else, the whole would be there. The whole is measured without the profiler, as in step.py.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
from layer import Case
from layers import FULL, ours, theirs
from measure import Floor, Run, operations
from record import publish, record
from steps import METHODS, PROBE, Setting, Steps, clip_of_width
from torch.profiler import ProfilerActivity, profile

PRODUCTS, SMALL = "matrix products", "products of many small matrices"
PARTS = {
    PRODUCTS: ("mm", "addmm", "addmm_", "linear", "mkldnn_convolution", "convolution", "convolution_backward"),
    SMALL: ("bmm", "baddbmm"),
    "copies and casts": ("copy_", "_to_copy", "clone", "cat", "contiguous"),
    "adding the update to the weight": ("addcmul",),
}
FAMILIES = {  # of operations with one of these in their names
    "attention in one kernel": ("scaled_dot_product",),
    "activations, norms, softmax": ("gelu", "native_layer_norm", "softmax", "sigmoid"),
}
MULTIPLYING = (PRODUCTS, SMALL)
OTHERS, BETWEEN = "sums, scalings and other operations", "Python and autograd between them"
DTYPES = ("float32", "bfloat16")
LAYERS = ("frozen", FULL, ours("KRAdapter"), ours("LoRA r16"), theirs("LoRA r16"))


def part_of(name: str) -> str:
    """The part that an event of the profiler counts to."""
    if not name.startswith("aten::"):
        return BETWEEN
    operation = name.removeprefix("aten::")
    named = (part for part, names in PARTS.items() if operation in names)
    akin = (part for part, pieces in FAMILIES.items() if any(piece in operation for piece in pieces))
    return next(chain(named, akin), OTHERS)


def apart(run: Run, rounds: int, floor: Floor) -> Iterator[dict[str, Any]]:
    """A row for the whole of ``run``, and one for each part of it, largest first."""
    times = floor.beside({"run": run}, rounds)
    rate = 1e9 * floor.facts()["product_gflop_per_s"]
    spent, done, calls = (defaultdict[str, float](float) for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True) as profiler:
        for _ in range(rounds):
            run()
    for event in profiler.key_averages():
        part = part_of(event.key)
        spent[part] += event.self_cpu_time_total / 1e6
        done[part] += event.flops or 0
        calls[part] += event.count / rounds
    share = floor.share(times, "run", operations(run))
    yield {"part": "all", "calls": None, "ms": 1e3 * median(times["run"]), "share %": 100.0, "floor %": share}
    for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        yield {
            "part": part, "calls": calls[part], "ms": 1e3 * seconds / rounds,
            "share %": 100 * seconds / sum(spent.values()),
            "floor %": 100 * done[part] / rate / seconds if part in MULTIPLYING else None,
        }  # fmt: skip


def steps(options: argparse.Namespace, dtype: str) -> Iterator[tuple[str, Run]]:
    """kravl's step with each method, by name."""
    setting = Setting("cpu", getattr(torch, dtype), options.blocks)
    for method in options.methods:
        made = Steps(options.model, method, options.classes, options.batch, setting)
        yield f"step, {method}", partial(made.step, "kravl")


def forwards(options: argparse.Namespace, dtype: str) -> Iterator[tuple[str, Run]]:
    """The image features of a batch, as in evaluation."""
    setting = Setting("cpu", getattr(torch, dtype), options.blocks)
    made = Steps(options.model, PROBE, options.classes, options.batch, setting)

    def forward() -> None:
        with torch.inference_mode(), setting.autocast():
            made.classifier.image_features(made.images)

    yield "forward, frozen image tower", forward


def layers(options: argparse.Namespace, dtype: str) -> Iterator[tuple[str, Run]]:
    """A layer forward and backward, by name."""
    for tokens in options.tokens:
        case = Case.linear(options.shape, tokens, "cpu", getattr(torch, dtype))
        for name in LAYERS:
            if name in case.layers:
                yield f"layer, {name}, {tokens} tokens", partial(case.step, case.layers[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with random weights")
    parser.add_argument("--methods", nargs="*", default=["KRAdapter", "LoRA"], choices=METHODS)
    parser.add_argument("--classes", type=int, default=100, help="of ImageNet's 1,000")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=4, help="of each tower")
    parser.add_argument("--shape", default="3072x768", metavar="OUTxIN", help="of the layer")
    parser.add_argument("--tokens", nargs="*", type=int, default=[256], help="rows of the layer's input")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="bfloat16 is autocast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="a small model and layer, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.quick:
        options.model, options.methods, options.blocks = clip_of_width(64, 1), ["KRAdapter"], 1
        options.classes, options.batch, options.rounds = 3, 2, 1
        options.shape, options.tokens = "50x37", [8]
    rows = []
    for dtype in options.dtypes:
        for name, run in chain(*(part(options, dtype) for part in (steps, forwards, layers))):
            floor = Floor("cpu", getattr(torch, dtype))
            rows += [{"what": name, "dtype": dtype, **row} for row in apart(run, options.rounds, floor)]
    settings = {key: getattr(options, key) for key in ("model", "classes", "batch", "blocks", "shape", "rounds")}
    publish(record("Where the time of a step, a forward and a layer goes", rows, settings=settings), options.json)


if __name__ == "__main__":
    main()
