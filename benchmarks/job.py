"""A whole few-shot job, from image files to metrics.json: where the time goes, and the memory of each phase.

python benchmarks/job.py --data-root FOLDER        16 shots of FOLDER/caltech101; a table, then JSON in one line
python benchmarks/job.py --data-root FOLDER --overrides backbone=vit_s14 optim.steps=100
python benchmarks/job.py --drawn 1000 --jobs KRAdapter --overrides backbone=clip_vitb16 \\
    backbone.build.pretrained=null optim.steps=2       memory beside 1,000 classes; a picture of each is drawn
python benchmarks/job.py --quick                   checks that it runs, on 64 drawn pictures; its figures mean nothing

The jobs run one after another in processes of their own, so that none finds what another has read; each is a command
that a user would give, with kravl-tiny unless --overrides says otherwise. Reading the files is timed as it comes: the
first job may find them outside of the system's cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data_pipelines import draw_pictures
from open_clip import IMAGENET_CLASSNAMES
from record import publish, record

ROOT = Path(__file__).parents[1]
MIB = 2**20
FROZEN = "loading.augmentation=none"
# what a user would give, by the name of the row; kept features need training images without random crops
JOBS = {
    "zero-shot": ["method=zeroshot"],
    "linear probe, random crops": ["method=linear_probe"],
    "linear probe, kept features": ["method=linear_probe", FROZEN],
    "KRAdapter": ["method=kra"],
    "LoRA": ["method=lora"],
    "KRAdapter, bf16": ["method=kra", "trainer=bf16"],
}
PHASES = ("assemble", "images", "features", "train", "evaluate")  # in the order of a run
DRAWN = ["data=folder", "data.test=../tested", "split_protocol=official"]
QUICK, ONE = ["shots=4", "optim.epochs=1"], ["shots=1"]
DRAWN_PICTURES = 64


def run(name: str, overrides: list[str], folder: Path, threads: int) -> list[dict[str, Any]]:
    """A row for each phase of the job, and one for all of it, from the start of the process to its end."""
    runs = folder / name.replace(" ", "_").replace(",", "")
    quiet = ["tracking=none", f"runs={runs}", f"cache_root={runs}/cache", "spectrum_every=0", "name=job"]
    shown = ["++trainer.enable_progress_bar=false", "++trainer.enable_model_summary=false"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "train.py", *overrides, *quiet, *shown], cwd=ROOT, env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    whole = time.perf_counter() - begin
    cost = json.loads(next(runs.glob("job/*/cost.json")).read_text())
    metrics = json.loads(next(runs.glob("job/*/metrics.json")).read_text())
    key = "peak_memory_bytes" if cost["device"] == "cpu" else "peak_gpu_bytes"
    measured = [(phase, cost["phases"][phase]) for phase in PHASES if phase in cost["phases"]]
    phases = {phase: (values["seconds"], values[key]) for phase, values in measured}
    rest = whole - sum(seconds for seconds, _ in phases.values())
    phases |= {"start and end of the process": (rest, 0), "all": (whole, cost["peak_memory_bytes"])}
    return [
        {"job": name, "phase": phase, "s": seconds, "share %": 100 * seconds / whole,
         "peak MiB": peak / MIB if peak else None,
         "test accuracy": metrics["metrics"]["test/accuracy"] if phase == "all" else None}
        for phase, (seconds, peak) in phases.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="where caltech101/ is")
    parser.add_argument("--drawn", type=int, metavar="CLASSES", help="of ImageNet's names, in place of Caltech-101")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--overrides", nargs="*", default=[], help="of train.py, for every job")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="drawn pictures, one job, one epoch")
    options = parser.parse_args()
    if options.quick:
        options.drawn, options.jobs = 2, ["linear probe, kept features"]
    if options.drawn is None and options.data_root is None:
        parser.error("give --data-root, --drawn or --quick")
    settings = ["backbone=kravl_tiny", "evaluation=in_domain", "seed=1"]
    settings += (
        ["data=caltech101", "shots=16"] if options.drawn is None else [*DRAWN, *(QUICK if options.quick else ONE)]
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = [f"data_root={(options.data_root or Path(temporary)).resolve()}"]
        if options.drawn:
            draw(Path(temporary), options.drawn)
            place.append(f"data.root={temporary}/pictures")
        for name in options.jobs:
            overrides = [*JOBS[name], *settings, *place, *options.overrides]
            rows += run(name, overrides, Path(temporary), options.threads)
    publish(record("A few-shot job", rows, settings={"overrides": settings + options.overrides}), options.json)


def draw(folder: Path, classes: int) -> None:
    """Pictures to train on and, of the first classes, to test on."""
    names = [name.replace("/", "or") for name in dict.fromkeys(IMAGENET_CLASSNAMES)]
    names += [f"other {name}" for name in names]
    draw_pictures(folder / "pictures", names[:classes], max(classes, DRAWN_PICTURES))
    draw_pictures(folder / "tested", names[:classes], DRAWN_PICTURES)


if __name__ == "__main__":
    main()
