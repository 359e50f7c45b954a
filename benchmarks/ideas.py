"""What might make a layer with few tokens faster, each idea beside what kravl does, in the same rounds.

python benchmarks/ideas.py                         one layer at 256 and 788 tokens
python benchmarks/ideas.py --dtype bfloat16        with those that concern casts
python benchmarks/ideas.py --quick                 checks itself on tiny layers

An idea that gained is in kravl, and what it replaced stands here. ``/ kravl`` is the median over rounds of its time
over kravl's in the same round: below 1 it is faster. ``kept MiB`` is what it holds between the passes, or for as long
as there is the model, in place of what kravl does. ``differs`` is the largest difference of an output or gradient from
kravl's over the largest value: 0 is bit for bit. What torch.compile makes is left out without a C++ compiler.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from shutil import which
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from idea_layers import HALF, KeptLinear, PrepackedLinear, WrittenLinear, contract_by_columns, held_in_half, parts
from layer import MIB, QUICK_SHAPES, Case
from layers import FULL, ours
from measure import Floor, Run, ratio
from record import add_options, publish, record
from torch import Tensor, nn

from kravl.adapters import kra, workspace
from kravl.adapters.kra import KRAdapter

SHAPES, TOKENS, QUICK_TOKENS = ("3072x768", "768x768"), (256, 788), (8,)
METHODS = ("KRAdapter", "LoRA r16")
BLOCKS = 12  # layers of one shape in a ViT-B
COMPILED = {"contraction of the gradient": "_contract", "adding of the update": "_add_khatri_rao"}  # of kra.py


class Idea(NamedTuple):
    """``layer`` is a copy of kravl's that does it, or kravl's own, run within ``context()``."""

    name: str
    layer: nn.Module
    kept_bytes: int = 0
    context: Any = nullcontext


class NotReused:
    """A context in which a step has scratch memory of its own."""

    def __enter__(self) -> None:
        workspace.release()

    def __exit__(self, *_: object) -> None:
        workspace.release()


def ideas(case: Case, other: Case, compiles: bool) -> Iterator[tuple[str, Idea]]:
    """With the name of kravl's layer that each is beside; the layers of ``other``, the same ones, may be changed."""
    dense, thin = ours("KRAdapter"), ours("LoRA r16")
    half = case.dtype == HALF
    frozen, _ = parts(case.layers["frozen"])
    copy = frozen.numel() * (2 if half else 4)
    yield dense, Idea("adapted weight kept, in new memory", KeptLinear(case.layers[dense]), copy)
    if half:
        yield thin, Idea("cast weight kept, as PEFT's layer does", KeptLinear(case.layers[thin]), copy)
        for name in ("frozen", thin, dense):
            yield name, Idea("frozen weight held in bf16", held_in_half(other.layers[name]), -copy)
        written = WrittenLinear(other.layers[dense])
        yield dense, Idea("the same, and the update written in bf16", written, -copy)
    else:
        kept = KeptLinear(case.layers[dense], torch.empty_like(frozen))
        yield dense, Idea("adapted weight kept, in memory of the layer's own", kept, copy)
        if torch.backends.mkldnn.is_available():
            packed = PrepackedLinear(case.layers["frozen"], len(case.x))
            yield "frozen", Idea("weight prepacked by oneDNN", packed, copy)
    yield dense, Idea("scratch memory not shared", case.layers[dense], 0, NotReused)
    by_columns = partial(patch.object, kra, "_contract", contract_by_columns)
    yield dense, Idea("gradient of v by columns, as it was", case.layers[dense], 0, by_columns)
    for name, function in COMPILED.items() if compiles else ():
        compiled = torch.compile(getattr(kra, function))
        context = partial(patch.object, kra, function, compiled)
        yield dense, Idea(f"{name} compiled", case.layers[dense], 0, context)


def rows_of(tried: Sequence[tuple[str, Idea]], case: Case, rounds: int, floor: Floor) -> Iterator[dict[str, Any]]:
    """A row for each idea, after one for full fine-tuning and kravl's KRAdapter."""

    def step(idea: Idea) -> Run:
        def run() -> None:
            with idea.context():
                case.step(idea.layer)

        return run

    names = dict.fromkeys([FULL, *(beside for beside, _ in tried)])
    runs: dict[str, Run] = {name: partial(case.step, case.layers[name]) for name in names}
    runs |= {f"{beside}: {idea.name}": step(idea) for beside, idea in tried}
    times = floor.beside(runs, rounds)
    full = {name: ratio(times[name], times[FULL]) for name in runs}
    for name in names:
        yield {**case.labels, "layer": name, "idea": None, "/ kravl": None, "/ full": full[name], "kept MiB": None,
               "differs": None}  # fmt: skip
    for beside, idea in tried:
        name = f"{beside}: {idea.name}"
        with idea.context():
            values = case.values_of(idea.layer)
        yield {**case.labels, "layer": beside, "idea": idea.name, "/ kravl": ratio(times[name], times[beside]),
               "/ full": full[name], "kept MiB": idea.kept_bytes / MIB,
               "differs": difference(values, case.values(beside))}  # fmt: skip


def difference(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference over the largest value, of the tensor where that is most."""
    pairs = ((a.double(), b.double()) for a, b in zip(values, expected, strict=True) if a.numel())
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def grouped(shape: str, tokens: int, rounds: int, floor: Floor) -> dict[str, Any]:
    """The gradients of KRAdapter's factors in `BLOCKS` layers of one shape, contracted in one call, not one a layer.

    Only these: the gradient's product and its contraction. One call needs the gradients of all weights at once.
    """
    out, columns = (int(side) for side in shape.split("x"))
    pairs = [(torch.randn(tokens, min(out, columns)), torch.randn(tokens, max(out, columns))) for _ in range(BLOCKS)]
    adapters = [KRAdapter(out, columns) for _ in range(BLOCKS)]
    u, v = (torch.cat([getattr(adapter, name).detach() for adapter in adapters]) for name in "uv")
    short, long = min(out, columns), max(out, columns)
    all_gradients = torch.empty(BLOCKS * short, long)

    def singly() -> list[tuple[Tensor, Tensor]]:
        one = all_gradients[:short]
        return [
            kra._contract(torch.mm(a.T, b, out=one), adapter.u.detach(), adapter.v.detach())
            for (a, b), adapter in zip(pairs, adapters, strict=True)
        ]

    def together() -> tuple[Tensor, Tensor]:
        for number, (a, b) in enumerate(pairs):
            torch.mm(a.T, b, out=all_gradients[number * short : (number + 1) * short])
        return kra._contract(all_gradients, u, v)

    expected = [torch.cat(parts) for parts in zip(*singly(), strict=True)]
    differs = difference(together(), expected)
    times = floor.beside({"singly": singly, "together": together}, rounds)
    return {"shape": shape, "tokens": tokens, "layer": ours("KRAdapter"),
            "idea": f"gradients of {BLOCKS} layers contracted in one call (of these parts alone)",
            "/ kravl": ratio(times["together"], times["singly"]), "/ full": None,
            "kept MiB": 4 * (BLOCKS - 1) * short * long / MIB, "differs": differs}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="OUTxIN")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS, help="rows of the input")
    add_options(parser, 15, "tiny layers, one round, nothing compiled")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.shapes, options.tokens, options.rounds = QUICK_SHAPES, QUICK_TOKENS, 1
    dtype, compiles = getattr(torch, options.dtype), not options.quick and bool(which(os.environ.get("CXX", "g++")))
    floor = Floor("cpu", dtype)
    rows: list[dict[str, Any]] = []
    for shape in options.shapes:
        for tokens in options.tokens:
            torch.manual_seed(0)
            case = Case.linear(shape, tokens, "cpu", dtype, METHODS)
            torch.manual_seed(0)
            other = Case.linear(shape, tokens, "cpu", dtype, METHODS)
            rows += rows_of(list(ideas(case, other, compiles)), case, options.rounds, floor)
            if dtype == torch.float32:
                rows.append(grouped(shape, tokens, options.rounds, floor))
    settings = {"dtype": options.dtype, "rounds": options.rounds}
    publish(record("Ideas for layers with few tokens", rows, settings=settings, floor=floor.facts()), options.json)


if __name__ == "__main__":
    main()
