"""The runs below a folder, finished or not, each with its state and the numbers that one looks for first."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, first_line, printable
from kravl.runtime.files import no_folder, read_json
from kravl.runtime.lock import in_use
from kravl.study.scheduler import FAILED
from kravl.tracking.records import RUN_FIELDS, is_number, record_problem
from kravl.tracking.run_folder import RunFolder

MARKS = ("metrics.json", "inputs.json", FAILED)  # one of these files, or a lock, makes a folder that of a run
LONGEST_REASON = 120  # characters of why a run has failed
EMPTY = {"method": "", "data set": "", "shots": "", "test": "", "OOD mean": "", "parameters": ""}


def list_runs(folder: Path) -> list[dict[str, str]]:
    """A row for each run below ``folder``, by its path: state, what it is, accuracies in percent, parameters.

    A run whose process lives is ``training``, one that has ended without a record ``stopped``: the same command resumes
    it. A study says of a run that it has ``failed``.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{no_folder(folder)}; kravl ls runs --runs takes a folder that holds runs")
    return [{"run": printable(path), **_row(path)} for path in _run_folders(folder)]


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        if any(mark in files for mark in MARKS) or ".owner" in files:
            folders.clear()  # what is in a run is no run
            yield Path(place)


def _row(path: Path) -> dict[str, str]:
    if (path / "metrics.json").is_file():
        return _finished(path)
    if in_use(path):
        return {"state": f"training{_step(path)}", **EMPTY}
    if (path / FAILED).is_file():
        return {"state": f"failed: {_reason(path)}", **EMPTY}
    return {"state": f"stopped{_step(path)}", **EMPTY}


def _finished(path: Path) -> dict[str, str]:
    try:
        record = read_json(path / "metrics.json")
        problem = record_problem(record, RUN_FIELDS) if isinstance(record, dict) else "not a JSON object"
    except InputError as error:
        problem = first_line(error)
    if problem:
        return {"state": f"damaged: {printable(problem)[:LONGEST_REASON]}", **EMPTY}
    metrics = record["metrics"]
    return {
        "state": "finished, shortened" if record.get("shortened") else "finished",
        "method": f"{record['backbone']} {record['method']}",
        "data set": record["dataset"],
        "shots": "all" if record["shots"] is None else f"{record['shots']:g}",
        "test": _percent(metrics, "test/accuracy"),
        "OOD mean": _percent(metrics, "ood_mean"),
        "parameters": f"{record['trainable_parameters']:,}",
    }


def _percent(metrics: Mapping[str, Any], name: str) -> str:
    return f"{100 * metrics[name]:.1f}" if is_number(metrics.get(name)) else ""


def _step(path: Path) -> str:
    """`` at step N`` of the newest checkpoint, or that nothing but the evaluation is left."""
    folder = RunFolder(path)
    if folder.trained.is_file():
        return ", trained and not evaluated"
    steps = [
        int(found[1]) for file in folder.checkpoints.glob("step=*") if (found := re.match(r"step=(\d+)", file.name))
    ]
    return f" at step {max(steps)}" if steps else ""


def _reason(path: Path) -> str:
    try:
        record = read_json(path / FAILED)
    except InputError as error:
        return first_line(error)
    return printable(record.get("reason") if isinstance(record, dict) else record)[:LONGEST_REASON]
