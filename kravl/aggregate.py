"""Finished runs -> one group per setting, method and shots, with mean and spread over seeds."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any, NamedTuple

from kravl.runtime.errors import InputError
from kravl.runtime.files import read_json
from kravl.tracking.wandb_offline import read_offline

SCHEMA = 1
ZERO_SHOT = "zero-shot"
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


@dataclass(frozen=True)
class Run:
    """A metrics.json and the cost.json beside it."""

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


class Setting(NamedTuple):
    """What methods are compared within."""

    backbone: str
    dataset: str
    evaluation: str


class Stat(NamedTuple):
    """Mean, standard deviation (None of a single value) and number of values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """The runs of a method that differ by seed; ``shots`` None is all images, 0 is zero-shot.

    Deviations are those of a sample (ddof = 1) or, with ``population``, of all there is (ddof = 0, as CoOp's).
    """

    setting: Setting
    method: str
    shots: int | float | None
    runs: tuple[Run, ...]
    population: bool = False

    @property
    def amount(self) -> str:
        """``shots`` as it is written: a number, or ``all``."""
        return "all" if self.shots is None else str(self.shots)

    @property
    def names(self) -> list[str]:
        """What any of the runs has a number for, the in-domain test set first."""
        return sorted({name for run in self.runs for name in run.values}, key=lambda n: (not n.startswith("test/"), n))

    def stat(self, name: str) -> Stat | None:
        """Over the runs that have a number for ``name``; None if none has."""
        return statistic([run.values[name] for run in self.runs if name in run.values], self.population)


def statistic(values: Sequence[float], population: bool = False) -> Stat | None:
    """None of no ``values``."""
    if not values:
        return None
    deviation = pstdev if population else stdev
    return Stat(fmean(values), deviation(values) if len(values) > 1 else None, len(values))


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Every finished run below ``folder``, and a line for each file that cannot be used.

    What evaluate.py found later about a run counts as a run of that evaluation, in place of an earlier one. A run of
    which only W&B's folder is there is read from that.
    """
    runs: list[Run] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("metrics.json")):
        later = sorted(path.parent.glob("evaluations/*.json"))
        record = _read(path, RUN_FIELDS, problems)
        cost_file = path.with_name("cost.json")
        if record is None:
            continue
        cost = (_read(cost_file, {}, problems) or {}) if cost_file.exists() else {}
        found = [record] + [{**record, **more} for file in later if (more := _read(file, EVALUATION_FIELDS, problems))]
        runs.extend({each["evaluation"]: Run(path.parent, each, cost) for each in found}.values())
    offline, unread = read_offline(folder)
    known = [run.record for run in runs]
    for each in offline:
        place, record = each["folder"], each["record"]
        if record in known:  # a copy of W&B's folder, away from its run
            continue
        if line := _unfit(record, RUN_FIELDS):
            unread.append(f"skipped {place}: {line}")
        else:
            runs.append(Run(place, record, each["cost"]))
    return runs, [*problems, *unread]


def _read(path: Path, fields: Fields, problems: list[str]) -> dict[str, Any] | None:
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise InputError("no JSON object")
        if line := _unfit(record, fields):
            raise InputError(line)
    except InputError as error:
        problems.append(f"skipped {path}: {error}")
        return None
    return record


def _unfit(record: Mapping[str, Any], fields: Fields) -> str | None:
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


def _rounded(metrics: Mapping[str, float | None]) -> str:
    # a linear head that starts from the text features rounds once more than those do
    return json.dumps({name: v if v is None else round(v, 6) for name, v in metrics.items()}, sort_keys=True)


def group_runs(runs: Iterable[Run], population: bool = False) -> list[Group]:
    """Groups in the order of a table; the zero-shot results that the runs carry are a group of their own."""
    members: dict[tuple[Setting, str, int | None], list[Run]] = defaultdict(list)
    zero_shot: dict[Setting, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        record = run.record
        setting = Setting(record["backbone"], record["dataset"], record["evaluation"])
        members[setting, record["method"], record["shots"]].append(run)
        if metrics := record["zero_shot"]:
            untrained = {**record, "metrics": metrics, "trainable_parameters": 0, "effective_rank": {}}
            zero_shot[setting].setdefault(_rounded(metrics), Run(run.folder, untrained, {}))
    for setting, distinct in zero_shot.items():
        members[setting, ZERO_SHOT, 0] = list(distinct.values())
    groups = [Group(*key, tuple(found), population) for key, found in members.items()]
    return sorted(groups, key=lambda g: (g.setting, g.method != ZERO_SHOT, g.method, g.shots is None, g.shots or 0))
