"""The command line of the campaign: each row in a process of its own, a table, and what is kept of it."""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from faults.campaign import HEAD, Outcome, Row, attempt, markdown, record, rows
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kravl.runtime.files import write_atomic
from kravl.tracking.provenance import provenance

ROOT = Path(__file__).parents[2]
PACKAGES = ("hydra-core", "omegaconf", "safetensors", "wandb", "pillow")


DESCRIPTION = "Kill, interrupt and starve runs, feed them damaged and hostile files, and print what held."


def main() -> int:
    """Run the rows, print the table and keep it. 0 if every gate is reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="a few tries of each row; nothing is kept without --out")
    parser.add_argument(
        "--tries", type=int, help="of each row, in place of its own number, such as --only 21 33 --tries 20000"
    )
    parser.add_argument("--only", nargs="+", type=int, default=[], metavar="ROW", help="these rows, by number")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="rows at once (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder of table.md and results.json (experiments/faults)")
    parser.add_argument("--work", type=Path, help="empty folder for the runs, kept (default: a temporary one)")
    parser.add_argument("--log", type=Path, help="file that takes what the runs print (default: nowhere)")
    options = parser.parse_args()
    if not rows(options.only):
        parser.error(f"no such row; there are {sorted({row.number for row in rows().values()})}")
    made = provenance()  # now, as the code is loaded: a campaign takes hours
    results = dict(_campaign(options))
    table = Table(*HEAD)
    for result in sorted(results.values(), key=lambda r: r["row"]):
        table.add_row(*(str(result[key]) for key in HEAD))
    Console().print(table)
    for name, result in results.items():
        for failure in result["failures"][:10]:
            print(f"row {result['row']} ({name}): {failure}")
    if out := options.out or (None if options.quick else ROOT / "experiments/faults"):
        _keep(out, results, made)
    return int(not all(result["passed"] for result in results.values()))


def _campaign(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Module -> its record, as rows finish; each row has a process, a folder and a temporary folder of its own."""
    planned = rows(options.only)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.jobs, spawn, _begin, (options.log or Path(os.devnull),), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory() as temporary, Progress() as progress, pool:
        bar = progress.add_task("rows", total=len(planned))
        running: dict[Future[tuple[Outcome, float]], str] = {}
        for name, row in planned.items():
            folder = (options.work or Path(temporary)).resolve() / name
            folder.mkdir(parents=True)
            running[pool.submit(_timed, name, _tries(row, options), folder)] = name
        for done in as_completed(running):
            name = running[done]
            error = done.exception()
            outcome, seconds = (Outcome(0, "it raised", [repr(error)]), 0.0) if error else done.result()
            progress.update(bar, advance=1, description=f"row {planned[name].number} done")
            yield name, record(planned[name], outcome, seconds)


def _tries(row: Row, options: argparse.Namespace) -> int:
    return options.tries or (row.quick_count if options.quick else row.full_count)


def _begin(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def _timed(module: str, count: int, folder: Path) -> tuple[Outcome, float]:
    begin = time.perf_counter()
    return attempt(module, count, folder), time.perf_counter() - begin


def _keep(out: Path, results: dict[str, dict[str, Any]], made: Mapping[str, Any]) -> None:
    """Add to what earlier calls found for other rows; each row says by which command, commit and versions."""
    out.mkdir(parents=True, exist_ok=True)
    versions = made["versions"] | {name: importlib.metadata.version(name) for name in PACKAGES}
    command = shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])
    where = {"command": command, "commit": made["git_commit"], "python": platform.python_version()}
    file = out / "results.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept |= {name: result | where | {"versions": versions} for name, result in results.items()}
    kept = dict(sorted(kept.items(), key=lambda item: (item[1]["row"], item[0])))
    write_atomic(file, json.dumps(kept, indent=1) + "\n")
    write_atomic(out / "table.md", markdown(kept.values()))
