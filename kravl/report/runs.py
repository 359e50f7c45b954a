"""Finished runs below a folder: read, checked and selected."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, some_of, unknown
from kravl.runtime.files import read_json
from kravl.tracking.settings import dotted

SCHEMA = 1
NUMBERS = ("metrics", "zero_shot", "effective_rank")
LARGEST = 1e300  # comparing with it also refuses NaN
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
        return {name: number for name, number in numbers.items() if isinstance(number, int | float)}


def read_runs(folder: Path) -> tuple[list[FinishedRun], list[str]]:
    """Every finished run below ``folder``, and a line for each file that cannot be used.

    A later evaluation of a run counts as a run of that evaluation, in place of an earlier one.
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
        others = [{**record, **more} for file in later if (more := _read(file, EVALUATION_FIELDS, problems))]
        runs.extend({each["evaluation"]: FinishedRun(path.parent, each, cost) for each in [record, *others]}.values())
    return runs, [*problems, *_without_metrics(folder)]


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


def _without_metrics(folder: Path) -> list[str]:
    """A line if ``folder`` holds W&B offline folders without a metrics.json beside them."""
    offline = {file.parent for file in folder.rglob("offline-run-*/run-*.wandb")}
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


def record_problem(record: Mapping[str, Any], fields: Fields) -> str | None:
    """Why this is not a valid record with the ``fields``, or None."""
    if (schema := record.get("schema", SCHEMA)) != SCHEMA:
        return f"schema {schema}, not {SCHEMA}"
    if wrong := [name for name, kind in fields.items() if not isinstance(record.get(name, ...), kind)]:
        return f"missing or invalid: {', '.join(wrong)}"
    wrong = [name for name in NUMBERS if not _numbers(record.get(name) or {})]
    return f"values that are not numbers in {', '.join(wrong)}" if wrong else None


def _numbers(values: Any) -> bool:
    """Whether every value is None or a number that tables can show, and nothing is nested."""
    return isinstance(values, dict) and all(
        value is None or (isinstance(value, int | float) and abs(value) < LARGEST) for value in values.values()
    )


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
