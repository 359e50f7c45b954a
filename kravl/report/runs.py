"""Finished runs below a folder: read, checked and selected."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import read_json
from kravl.tracking.settings import dotted

SCHEMA = 1
NUMBERS = ("metrics", "zero_shot", "effective_rank")
MOST = 1e300  # also refuses what is not a number
Fields = Mapping[str, type | tuple[type, ...]]
RUN_FIELDS: Fields = {
    "backbone": str,
    "dataset": str,
    "evaluation": str,
    "method": str,
    "shots": (int, float, type(None)),
    "seed": int,
    "split_seed": int,
    "split_protocol": str,
    "split_sha256": str,
    "templates": list,
    "metrics": dict,
    "zero_shot": (dict, type(None)),
    "wise_ft": list,
    "trainable_parameters": int,
    "effective_rank": dict,
    "versions": dict,
    "config": dict,
}
EVALUATION_FIELDS: Fields = {name: RUN_FIELDS[name] for name in ("evaluation", "metrics", "zero_shot", "wise_ft")}
SHORT = 7  # characters from which on the beginning of a hash or commit will do


@dataclass(frozen=True)
class FinishedRun:
    """A metrics.json and the cost.json beside it.

    ``folder`` is where its other files are, if any; of a run in W&B it is the project's address, where there are none.
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
        return {name: number for name, number in numbers.items() if isinstance(number, int | float)}


def read_runs(folder: Path) -> tuple[list[FinishedRun], list[str]]:
    """Every finished run below ``folder``, and a line for each file that cannot be used.

    What evaluate.py found later about a run counts as a run of that evaluation, in place of an earlier one.
    """
    runs: list[FinishedRun] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("metrics.json")):
        later = sorted(path.parent.glob("evaluations/*.json"))
        record = _read(path, RUN_FIELDS, problems)
        cost_file = path.with_name("cost.json")
        if record is None:
            continue
        cost = (_read(cost_file, {}, problems) or {}) if cost_file.exists() else {}
        found = [record] + [{**record, **more} for file in later if (more := _read(file, EVALUATION_FIELDS, problems))]
        runs.extend({each["evaluation"]: FinishedRun(path.parent, each, cost) for each in found}.values())
    return runs, [*problems, *_without_metrics(folder)]


def _without_metrics(folder: Path) -> list[str]:
    """A line where W&B's offline folders are below ``folder`` that have no metrics.json beside them."""
    offline = {file.parent for file in folder.rglob("offline-run-*/run-*.wandb")}
    alone = sorted(path for path in offline if not any((near / "metrics.json").exists() for near in path.parents[:2]))
    if not alone:
        return []
    return [
        f"left out {len(alone)} of W&B's offline folders, which have no metrics.json beside them, such as {alone[0]}: "
        "the run is unfinished, or W&B's copy is all that is left of it; after `wandb sync` of that folder "
        "`kravl report wandb:ENTITY/PROJECT` reads it"
    ]


def _read(path: Path, fields: Fields, problems: list[str]) -> dict[str, Any] | None:
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise InputError("not a JSON object")
        if line := unfit(record, fields):
            raise InputError(line)
    except InputError as error:
        problems.append(f"skipped {path}: {error}")
        return None
    return record


def unfit(record: Mapping[str, Any], fields: Fields) -> str | None:
    """Why this is no record with the ``fields``, or None."""
    if (schema := record.get("schema", SCHEMA)) != SCHEMA:
        return f"schema {schema}, not {SCHEMA}"
    if wrong := [name for name, kind in fields.items() if not isinstance(record.get(name, ...), kind)]:
        return f"without a proper {', '.join(wrong)}"
    wrong = [name for name in NUMBERS if not _numbers(record.get(name) or {})]
    return f"with other values than numbers in {', '.join(wrong)}" if wrong else None


def _numbers(values: Any) -> bool:
    """Whether every value is a number that tables can show, or None; what is nested has no place in them."""
    return isinstance(values, dict) and all(
        value is None or (isinstance(value, int | float) and abs(value) < MOST) for value in values.values()
    )


def select(runs: Iterable[FinishedRun], conditions: Sequence[str]) -> list[FinishedRun]:
    """The runs that fulfil all of ``conditions``, each ``key=value`` or ``key=one,other`` over the keys of a record.

    Keys are dotted (``config.optim.lr``, ``versions.torch``); a hash or commit may be cut after seven characters.

    Raises:
        InputError: no ``=``, a key that no run has (the nearest is named), or a value that none has (all are named).
    """
    kept = list(runs)
    for condition in conditions:
        key, equals, wanted = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition} is no key=value")
        records = [flat(run.record) for run in kept]
        if not any(key in record for record in records):
            raise unknown("key of --where", key, {name for record in records for name in record})
        values = [wanted, *wanted.split(",")]
        found = [run for run, record in zip(kept, records, strict=True) if _says(record, key, values)]
        if not found:
            legal = {_text(record[key]) for record in records if key in record}
            raise unknown(f"value of {key}", wanted, legal)
        kept = found
    return kept


def _says(record: Mapping[str, Any], key: str, values: Sequence[str]) -> bool:
    if key not in record:
        return False
    said = _text(record[key])
    return any(said == value or (len(value) >= SHORT and said.startswith(value)) for value in values)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; empty ones are left out."""
    return {key: value for key, value in dotted(record) if value != {}}
