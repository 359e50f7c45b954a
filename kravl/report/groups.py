"""Runs grouped over seeds, with statistics of their numbers."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import NamedTuple

from kravl.report.runs import FinishedRun
from kravl.tracking.run_folder import ZERO_SHOT


class Setting(NamedTuple):
    """What methods that are compared have in common."""

    backbone: str
    dataset: str
    evaluation: str


class Stat(NamedTuple):
    """Mean, standard deviation (None for a single value) and number of values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """The runs of a method that differ only by seed; ``shots`` None means all images, 0 zero-shot.

    Deviations are those of a sample (ddof = 1) or, with ``population``, of a population (ddof = 0, as in CoOp).
    """

    setting: Setting
    method: str
    shots: int | float | None
    runs: tuple[FinishedRun, ...]
    population: bool = False

    @property
    def amount(self) -> str:
        """``shots`` as text: a number, or ``all``."""
        return "all" if self.shots is None else str(self.shots)

    @property
    def names(self) -> list[str]:
        """The names of all numbers that any of the runs has, the in-domain test set first."""
        return sorted({name for run in self.runs for name in run.values}, key=lambda n: (not n.startswith("test/"), n))

    def stat(self, name: str) -> Stat | None:
        """The statistic over the runs that have the number ``name``; None if none has."""
        return statistic([run.values[name] for run in self.runs if name in run.values], self.population)

    @property
    def by_seed(self) -> dict[int | None, Mapping[str, float]]:
        """The numbers of each run; zero-shot has no seed."""
        return {None if self.method == ZERO_SHOT else run.record["seed"]: run.values for run in self.runs}


def amounts(groups: Iterable[Group]) -> list[str]:
    """The distinct `Group.amount` of ``groups``, ascending."""
    return list(dict.fromkeys(g.amount for g in sorted(groups, key=lambda g: (g.shots is None, g.shots or 0))))


def mean_over_sets(groups: Sequence[Group], name: str) -> Stat | None:
    """Over one method's groups, one per data set: averaged seed by seed, so that the deviation is that of the mean."""
    first, *others = [{s: v[name] for s, v in group.by_seed.items() if name in v} for group in groups]
    rows = [[first[seed], *(other[seed] for other in others)] for seed in first if all(seed in o for o in others)]
    return statistic([fmean(row) for row in rows], groups[0].population)


def statistic(values: Sequence[float], population: bool = False) -> Stat | None:
    """Mean and deviation of ``values``; None if there are none."""
    if not values:
        return None
    deviation = pstdev if population else stdev
    return Stat(fmean(values), deviation(values) if len(values) > 1 else None, len(values))


def _rounded(metrics: Mapping[str, float | None]) -> str:
    # a linear head initialised from the text features rounds once more than they do
    return json.dumps({name: v if v is None else round(v, 6) for name, v in metrics.items()}, sort_keys=True)


def _images_of(field: str, run: FinishedRun) -> str | None:
    """A digest of the images behind a name; None in a record that has none."""
    value = run.record.get(field)
    if isinstance(value, dict):  # of sets by name: the test images are the data set's, of which not all may be used
        value = json.dumps({name: digest for name, digest in value.items() if name != "test"}, sort_keys=True)
        value = hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
    return str(value) if value is not None else None


def _told_apart(named: Sequence[tuple[str, str | None]]) -> list[str]:
    """Each name, with its digest's first digits where one name stands for several: two own folders may share one."""
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for name, digest in named:
        digests[name] |= {digest} if digest is not None else set()
    return [f"{name} ({digest[:7]})" if digest and len(digests[name]) > 1 else name for name, digest in named]


def group_runs(runs: Iterable[FinishedRun], population: bool = False) -> list[Group]:
    """Groups in a table's order; the zero-shot results recorded in the runs form a group of their own."""
    members: dict[tuple[Setting, str, int | None], list[FinishedRun]] = defaultdict(list)
    zero_shot: dict[Setting, dict[str, FinishedRun]] = defaultdict(dict)
    listed = list(runs)
    datasets = _told_apart([(run.record["dataset"], _images_of("data_sha256", run)) for run in listed])
    evaluations = _told_apart([(run.record["evaluation"], _images_of("sets_sha256", run)) for run in listed])
    for run, dataset, evaluation in zip(listed, datasets, evaluations, strict=True):
        record = run.record
        setting = Setting(record["backbone"], dataset, evaluation)
        members[setting, record["method"], record["shots"]].append(run)
        if metrics := record["zero_shot"]:
            untrained = {**record, "metrics": metrics, "trainable_parameters": 0, "effective_rank": {}}
            zero_shot[setting].setdefault(_rounded(metrics), FinishedRun(run.folder, untrained, {}))
    for setting, distinct in zero_shot.items():
        members[setting, ZERO_SHOT, 0] = list(distinct.values())
    groups = [Group(*key, tuple(grouped), population) for key, grouped in members.items()]
    return sorted(groups, key=lambda g: (g.setting, g.method != ZERO_SHOT, g.method, g.shots is None, g.shots or 0))
