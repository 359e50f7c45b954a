"""What a command costs before it does anything: processor time of its process, and of importing each library.

    python benchmarks/start.py

Seconds of user and system time, the median of several processes one after another, files in the page cache. The last
rows are the libraries that `kravl train` has imported by its first step: seconds of their own modules in one process.
"""

import argparse
import re
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from record import publish, record

RUN = "import sys; from kravl.cli.main import main; sys.exit(main())"
# the process ends where the first step would begin
FIRST_STEP = (
    "import os, sys, kravl.training.learner as learner; "
    "learner.Learner.training_step = lambda *arguments: os._exit(0); from kravl.cli.main import main; sys.exit(main())"
)
TRAIN = ("train", "backbone=kravl_tiny", "data=digits", "evaluation=validation", "split_protocol=official", "shots=1",
         "optim.epochs=1", "loading.augmentation=none", "tracking=none")  # fmt: skip
IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")
SMALL = 0.05  # seconds; libraries below are added up


def cpu_seconds(command: Sequence[str]) -> float:
    """User and system time of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_library(command: Sequence[str]) -> dict[str, float]:
    """Seconds of the modules of each top-level package that ``command`` imports, in the order of the largest."""
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    seconds: dict[str, float] = defaultdict(float)
    for microseconds, package in IMPORTED.findall(ended.stderr):
        seconds[package] += int(microseconds) / 1e6
    large = {name: taken for name, taken in seconds.items() if taken >= SMALL}
    large["all others"] = sum(seconds.values()) - sum(large.values())
    return dict(sorted(large.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help="one round, no training")
    options = parser.parse_args()
    python = [sys.executable, "-c"]
    commands = {
        "kravl --help": [*python, RUN, "--help"],
        "kravl ls methods": [*python, RUN, "ls", "methods"],
        "import torch": [*python, "import torch"],
    }
    with TemporaryDirectory() as runs:
        first_step = [FIRST_STEP, *TRAIN, f"runs={runs}"]
        if not options.quick:
            commands["import pytorch_lightning"] = [*python, "import pytorch_lightning"]
            commands["import open_clip"] = [*python, "import open_clip"]
            commands["kravl train, to its first step"] = [*python, *first_step]
        taken = {name: [cpu_seconds(command) for _ in range(options.rounds)] for name, command in commands.items()}
        rows = [{"what": name, "CPU seconds": median(each)} for name, each in taken.items()]
        traced = ["import torch"] if options.quick else first_step
        libraries = by_library([sys.executable, "-X", "importtime", "-c", *traced])
    rows += [{"what": f"modules of {name}", "CPU seconds": seconds} for name, seconds in libraries.items()]
    publish(record("Start of a command", rows, settings={"rounds": options.rounds}), options.json)


if __name__ == "__main__":
    main()
