"""How kravl's cost grows with width, classes, shots and batch: milliseconds, and the exponent of the growth.

python benchmarks/scale.py                         prints a table, then a JSON object in one line
python benchmarks/scale.py --device cuda --dtype bfloat16 --classes 10 100 1000
python benchmarks/scale.py --quick                 checks that it runs; its figures mean nothing

One size varies at a time, the others stay at the first of their lists or, of width, at the default. The exponent of a
row is the slope of log time over log size from the row before: 1 is linear growth. Shots grow the work of a head on
kept features once (the image tower) and in every epoch (the head); all other methods take steps x images in a batch.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from measure import Floor, interleaved, operations, saved_bytes
from record import add_options, publish, record
from steps import PROBE, Setting, Steps, clip_of_width

MIB = 2**20
Row = dict[str, Any]


def step_row(axis: str, size: int, steps: Steps, rounds: int, floor: Floor) -> Row:
    """A training step, and what its graph keeps."""
    times = floor.beside({"": lambda: steps.step("kravl")}, rounds)
    known = [*steps.classifier.parameters(), *steps.classifier.buffers(), steps.images]
    trained = sum(p.numel() for p in steps.parameters["kravl"])
    return {
        "axis": axis, "size": size, "ms": 1e3 * statistics.median(times[""]), "exponent": None,
        "floor %": floor.share(times, "", operations(lambda: steps.step("kravl"))),
        "saved MiB": saved_bytes(lambda: steps.loss("kravl"), known) / MIB, "trained": trained,
    }  # fmt: skip


def shots_row(shots: int, classes: int, name: str, setting: Setting, rounds: int) -> list[Row]:
    """The features of all images, and an epoch of the head on them."""
    steps = Steps(name, PROBE, classes, min(32, shots * classes), setting)
    batches = math.ceil(shots * classes / len(steps.images))

    def features() -> None:
        with torch.inference_mode(), setting.autocast():
            for _ in range(batches):
                steps.classifier.image_features(steps.images)

    def epoch() -> None:
        for _ in range(batches):
            steps.step("kravl")

    parts = {"shots: features, once": features, "shots: an epoch of the head": epoch}
    return [
        {"axis": axis, "size": shots, "ms": 1e3 * _median(run, rounds, setting.device), "exponent": None,
         "floor %": None, "saved MiB": None, "trained": steps.classifier.head_parameters()[0].numel()}
        for axis, run in parts.items()
    ]  # fmt: skip


def with_exponents(rows: Iterable[Row]) -> list[Row]:
    """The rows, by axis, each with its growth from the row before."""
    last: dict[str, Row] = {}
    ordered = sorted(rows, key=lambda row: row["axis"])
    for row in ordered:
        if before := last.get(row["axis"]):
            row["exponent"] = math.log(row["ms"] / before["ms"]) / math.log(row["size"] / before["size"])
        last[row["axis"]] = row
    return ordered


def _median(run: Callable[[], object], rounds: int, device: str) -> float:
    return statistics.median(interleaved({"": run}, rounds, device)[""])


def measure(options: argparse.Namespace, setting: Setting, floor: Floor) -> list[Row]:
    """All rows."""
    base, classes, batch = options.model, options.classes[0], options.batches[0]

    def steps(name: str, classes: int, batch: int) -> Steps:
        return Steps(name, options.method, classes, batch, setting)

    sizes: dict[str, tuple[Sequence[int], Callable[[int], Steps]]] = {
        "width": (options.widths, lambda width: steps(clip_of_width(width, options.blocks), classes, batch)),
        "classes": (options.classes, lambda count: steps(base, count, batch)),
        "batch": (options.batches, lambda count: steps(base, classes, count)),
    }
    rows = [
        step_row(axis, size, make(size), options.rounds, floor)
        for axis, (values, make) in sizes.items()
        for size in values
    ]
    for shots in options.shots:
        rows += shots_row(shots, classes, base, setting, options.rounds)
    return with_exponents(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with random weights")
    parser.add_argument("--method", default="KRAdapter", help="of steps.py")
    parser.add_argument("--widths", nargs="+", type=int, default=[256, 512, 1024], help="multiples of 64")
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 300])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32, 64])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--blocks", type=int, default=4, help="of each tower")
    add_options(parser, 3, "the smallest sizes, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.widths, options.classes, options.batches, options.shots = [64, 128], [2, 4], [1, 2], [1, 2]
        options.blocks, options.rounds, options.model = 2, 1, clip_of_width(64, 2)
    setting = Setting(options.device, getattr(torch, options.dtype), options.blocks)
    floor = Floor(options.device, setting.dtype)
    rows = measure(options, setting, floor)
    settings = {k: getattr(options, k) for k in ("model", "method", "blocks", "device", "dtype", "rounds")}
    publish(record("Growth of kravl's cost", rows, settings=settings, floor=floor.facts()), options.json)


if __name__ == "__main__":
    main()
