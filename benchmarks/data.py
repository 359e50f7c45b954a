"""Images per second of kravl's loaders against torchvision's ImageFolder with PIL transforms and a DataLoader.

python benchmarks/data.py --folder FOLDER   class folders of images; prints a table, then a JSON object in one line
python benchmarks/data.py --quick           checks itself on 64 pictures that it draws; its figures mean nothing

All pipelines run on the same files, in turn, several rounds; reported are medians, and of ratios within rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_pipelines import Pipelines, differences, draw_pictures
from record import publish, record

TASKS = ("train", "evaluate", "one pass", "two passes")


def images_per_second(make: Callable[[], Iterable[Any]], count: int) -> float:
    """Of one pass over at least ``count`` images."""
    begin = time.perf_counter()
    seen = sum(len(batch[1]) for batch in make())
    assert seen >= count  # a training set that is smaller than a batch is repeated
    return seen / (time.perf_counter() - begin)


def measure(pipelines: Pipelines, rounds: int, tasks: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> pipeline -> median images per second, and median ratio to the reference of the same round."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for task, passes in pipelines.passes().items():
        if tasks and task not in tasks:
            continue
        speeds: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(rounds):
            for name, make in passes.items():
                speeds[name].append(images_per_second(make, len(pipelines.samples)))
        base = next(iter(speeds.values()))
        results[task] = {
            name: {
                "images/s": statistics.median(values),
                "x": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            }
            for name, values in speeds.items()
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="class folders of images")
    parser.add_argument("--images", type=int, default=2000, help="how many of them, spread evenly")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tasks", nargs="+", default=[], choices=TASKS, help="these alone")
    parser.add_argument("--workers", type=int, default=0, help="processes of every DataLoader")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="64 drawn pictures, one round")
    options = parser.parse_args()
    if not options.quick and options.folder is None:
        parser.error("give --folder, or --quick")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "pictures"
        if options.folder is None:
            draw_pictures(folder)
        pipelines = Pipelines(folder, options.images, options.workers, Path(temporary) / "cache")
        results = measure(pipelines, 1 if options.quick else options.rounds, options.tasks)
        pixels = differences(pipelines)
    assert pixels["evaluation_max"] == 0, "evaluation must have the bits of PIL's transforms"
    rows = [{"task": task, "pipeline": name, **row} for task, found in results.items() for name, row in found.items()]
    settings = {"images": len(pipelines.samples), "rounds": options.rounds, "workers": options.workers}
    publish(record("Reading images", rows, settings=settings, pixels=pixels), options.json)


if __name__ == "__main__":
    main()
