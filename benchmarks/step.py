"""A whole training step of both towers: kravl against the plain loop of public few-shot code and PEFT (see steps.py).

python benchmarks/step.py                                  ViT-B-32, 10 and 100 classes; a table, then JSON in one line
python benchmarks/step.py --models ViT-B-32 ViT-B-16 --classes 10 100 1000 --rounds 1
python benchmarks/step.py --models ViT-B-16 --classes 1000 --loops kravl        where the plain loop does not fit
python benchmarks/step.py --loops peft peft-77 kravl --classes 100    LoRA by PEFT's users, who trim prompts or do not
python benchmarks/step.py --loops kravl kravl-shared kravl-stored     dropout shared by prompts, frozen weights in half
python benchmarks/step.py --device cuda --dtype bfloat16
python benchmarks/step.py --quick                          checks itself, in float64 too; its figures mean nothing

Times are medians over rounds; every round has all loops, and ratios, to the first, are medians of those within rounds.
The floor is a step's operations over the rate of a large matrix product in the same round. The plain loop of 1,000
classes keeps some 25 GiB in fp32: where that is too much, --dtype bfloat16 halves it, --blocks 4 takes a third. The
rows of the linear probe compare a step with the image tower to one on kept features. A method has the loops that can
train it: PEFT's LoRA (pip install -e ".[bench]").
"""

import argparse
import gc
import statistics
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from measure import Floor, operations, peak_bytes, ratio, saved_bytes
from record import add_options, publish, record
from steps import KRAVL, LOOPS, METHODS, PLAIN, PROBE, STORED, Setting, Steps, clip_of_width, loops_of

MIB = 2**20


def check(name: str, method: str, classes: int, loops: Sequence[str]) -> None:
    """Hold features and gradients of all loops but that of rounded weights equal in float64, with nothing dropped."""
    exact = dict.fromkeys((KRAVL, *loops))
    exact.pop(STORED, None)
    steps = Steps(name, method, classes, 4, Setting(dtype=torch.float64, loops=tuple(exact)))
    for model in steps.models.values():
        model.eval()
    ours = steps.values(KRAVL)
    for theirs in (steps.values(loop) for loop in steps.models if loop != KRAVL):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * max(1.0, float(other.detach().abs().max())))


def measure(steps: Steps, about: dict[str, Any], rounds: int, floor: Floor) -> list[dict[str, Any]]:
    """A row for each of its loops, which are compared with the first."""
    device, loops = steps.setting.device, list(steps.models)
    first = loops[0]
    times = floor.beside({loop: lambda loop=loop: steps.step(loop) for loop in loops}, rounds)
    known = [t for model in steps.models.values() for t in (*model.parameters(), *model.buffers())]
    saved = {loop: saved_bytes(lambda loop=loop: steps.loss(loop), [*known, steps.images]) for loop in loops}
    trains = steps.classifier.text_trains()
    text = {loop: saved_bytes(lambda loop=loop: steps.text(loop), known) if trains else 0 for loop in loops}
    rows = []
    for loop in loops:
        spent = statistics.median(times[loop])
        done = operations(lambda loop=loop: steps.step(loop))
        rows.append(about | {
            "loop": loop, "ms": 1e3 * spent, "x faster": ratio(times[first], times[loop]),
            "GFLOP": done / 1e9, "floor %": floor.share(times, loop, done),
            "saved MiB": saved[loop] / MIB, "x less": saved[first] / saved[loop] if saved[loop] else None,
            "of it text": text[loop] / MIB, "x less text": text[first] / text[loop] if text[loop] else None,
            "peak MiB": peak_bytes(lambda loop=loop: steps.step(loop), device) / MIB,
            "weights MiB": sum(p.nbytes for p in steps.models[loop].parameters()) / MIB,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32"], help="of open_clip, with random weights")
    parser.add_argument("--methods", nargs="+", default=[*METHODS, PROBE], choices=[*METHODS, PROBE])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100], help="of ImageNet's 1,000")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--blocks", type=int, help="of each tower; all of them by default")
    parser.add_argument("--loops", nargs="+", default=[PLAIN, KRAVL], choices=LOOPS)
    add_options(parser, 3, "a small model, one round, equality in float64")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    without = [method for method in options.methods if not {*loops_of(method)} & {*options.loops}]
    if without:
        parser.error(f"no loop of {options.loops} trains {without}; --methods names those that it should measure")
    if options.quick:
        options.models, options.classes, options.batch, options.rounds = [clip_of_width(128, 3)], [3], 2, 1
        for name, method in product(options.models, options.methods):
            check(name, method, 5, options.loops)
    setting = Setting(options.device, getattr(torch, options.dtype), options.blocks, tuple(options.loops))
    floor = Floor(options.device, setting.dtype)
    rows: list[dict[str, Any]] = []
    for name, classes, method in product(options.models, options.classes, options.methods):
        about = {"model": name, "classes": classes, "method": method}
        gc.collect()  # modules refer to each other: those of the row before would take as much memory again
        rows += measure(Steps(name, method, classes, options.batch, setting), about, options.rounds, floor)
    settings = {key: getattr(options, key) for key in ("batch", "blocks", "device", "dtype", "rounds")}
    publish(record("One training step", rows, settings=settings, floor=floor.facts()), options.json)


if __name__ == "__main__":
    main()
