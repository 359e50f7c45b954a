"""Finished runs below a folder: read, checked and selected."""

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, printable, some_of, unknown
from kravl.runtime.files import read_json
from kravl.tracking.records import COST_FIELDS, EVALUATION_FIELDS, RUN_FIELDS, Fields, is_number, record_problem
from kravl.tracking.settings import dotted

LONGEST_START = 100  # characters of the name of a run
START = " from "  # between a method and what its run started from; the name of a method has no space
HASH_PREFIX = 7  # characters of a hash or commit that suffice to select it


@dataclass(frozen=True)
class FinishedRun:
    """A metrics.json and the cost.json beside it.

    ``folder`` holds the run's other files; for a run in W&B it is the project's address, without files.
    """

    folder: Path
    record: Mapping[str, Any]
    cost: Mapping[str, Any]

    @cached_property
    def values(self) -> dict[str, float]:
        """Every number of the run by name; metrics are fractions."""
        numbers = {**self.record["metrics"], **self.cost}
        numbers["trainable_parameters"] = self.record["trainable_parameters"]
        numbers["effective_rank"] = self.record["effective_rank"].get("mean")
        return {name: number for name, number in numbers.items() if is_number(number)}


def read_runs(folder: Path) -> tuple[list[FinishedRun], list[str]]:
    """Every finished run below ``folder``, and a line for each file that cannot be used.

    A later evaluation of a run counts as a run of that evaluation, in place of an earlier one. Runs may begin, train
    and be deleted meanwhile: what is there when it is looked at counts.
    """
    runs: list[FinishedRun] = []
    problems: list[str] = []
    offline: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: _unreadable(error, problems)):
        folders.sort()
        if fnmatch.filter(files, "run-*.wandb") and fnmatch.fnmatch(Path(place).name, "offline-run-*"):
            offline.append(Path(place))
        if "metrics.json" in files:
            runs += _runs_in(Path(place), problems)
    return runs, [*problems, *_without_metrics(offline)]


def leave_out_shortened(runs: Iterable[FinishedRun]) -> tuple[list[FinishedRun], list[str]]:
    """The runs that did all that their settings say, and a line for each of the others."""
    whole: list[FinishedRun] = []
    lines: list[str] = []
    for run in runs:
        if reasons := run.record.get("shortened"):
            said = some_of(
                [str(reason)[:200] for reason in reasons] if isinstance(reasons, list) else ["says so"], 3, "; "
            )
            lines.append(f"left out {run.folder}, which is shortened: {said} (--shortened takes it in)")
        else:
            whole.append(run)
    return whole, lines


def _unreadable(error: OSError, problems: list[str]) -> None:
    """A line for a folder that cannot be listed; none for one that has gone meanwhile."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        problems.append(f"left out the folder {error.filename}: {error.strerror}")


def _runs_in(folder: Path, problems: list[str]) -> Iterable[FinishedRun]:
    """The run in ``folder``, by evaluation."""
    record = _read(folder / "metrics.json", RUN_FIELDS, problems)
    if record is None:
        return ()
    record = with_start(record)
    cost = _read(folder / "cost.json", COST_FIELDS, problems) if (folder / "cost.json").exists() else None
    try:
        later = sorted(path for path in (folder / "evaluations").iterdir() if path.suffix == ".json")
    except OSError:  # there is none
        later = []
    others = []
    for file in later:
        if more := _read(file, EVALUATION_FIELDS, problems):
            if line := record_problem(both := {**record, **more}, RUN_FIELDS):
                problems.append(f"skipped {file}: {line}")
            else:
                others.append(both)
    return {each["evaluation"]: FinishedRun(folder, each, cost or {}) for each in [record, *others]}.values()


def with_start(record: dict[str, Any]) -> dict[str, Any]:
    """The ``record`` of a run with what it started from (``init``) in its method's name, as it is another cell."""
    start = record.get("init")
    if not isinstance(start, dict) or not isinstance(run := start.get("run"), str):
        return record
    return {**record, "method": f"{record['method']}{START}{printable(run.partition('/')[0])[:LONGEST_START]}"}


def without_start(run: FinishedRun) -> FinishedRun:
    """The ``run`` by the name that a study gives its method, which tells its cells apart, without `with_start`."""
    method = run.record["method"]
    known = isinstance(run.record.get("init"), dict)
    return replace(run, record={**run.record, "method": method.partition(START)[0]}) if known else run


def _without_metrics(offline: Sequence[Path]) -> list[str]:
    """A line if there are W&B ``offline`` folders without a metrics.json beside them."""
    alone = sorted(path for path in offline if not any((near / "metrics.json").exists() for near in path.parents[:2]))
    if not alone:
        return []
    return [
        f"left out {len(alone)} of W&B's offline folders, which have no metrics.json beside them, such as {alone[0]}: "
        "the run is unfinished, or only W&B's copy of it is left; after `wandb sync` of that folder "
        "`kravl report wandb:ENTITY/PROJECT` reads it"
    ]


def _read(path: Path, fields: Fields, problems: list[str]) -> dict[str, Any] | None:
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise InputError("not a JSON object")
        if line := record_problem(record, fields):
            raise InputError(line)
    except InputError as error:
        problems.append(f"skipped {path}: {error}")
        return None
    return record


def select(runs: Iterable[FinishedRun], conditions: Sequence[str]) -> list[FinishedRun]:
    """The runs that match all ``conditions``, each ``key=value`` or ``key=one,other`` on a key of the record.

    Keys are dotted (``config.optim.lr``, ``versions.torch``); a hash or commit may be shortened to seven characters.

    Raises:
        InputError: no ``=``, a key that no run has, or a value that none has; with the legal ones.
    """
    selected = list(runs)
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition} is not KEY=VALUE")
        records = [flatten(run.record) for run in selected]
        if not any(key in record for record in records):
            raise unknown("key of --where", key, {name for record in records for name in record})
        values = [text, *text.split(",")]
        matching = [run for run, record in zip(selected, records, strict=True) if _matches(record, key, values)]
        if not matching:
            legal = {_text(record[key]) for record in records if key in record}
            raise unknown(f"value of {key}", text, legal)
        selected = matching
    return selected


def _matches(record: Mapping[str, Any], key: str, values: Sequence[str]) -> bool:
    if key not in record:
        return False
    text = _text(record[key])
    return any(text == value or (len(value) >= HASH_PREFIX and text.startswith(value)) for value in values)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; empty ones are left out."""
    return {key: value for key, value in dotted(record) if value != {}}
