"""Runs grouped over seeds, with statistics of their numbers, and why they may not be comparable."""

import dataclasses
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median, pstdev, stdev
from typing import Any, NamedTuple

from kravl.report.published.rows import PublishedRow
from kravl.report.runs import FinishedRun, flatten
from kravl.runtime.errors import some_of
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT
from kravl.tracking.settings import PER_RUN, compared_settings

OF_A_GROUP = {*PER_RUN, "evaluation"}  # settings that its runs may differ in: what they were evaluated on is said apart
LONGEST_FILE = 150  # characters; endings follow


class Setting(NamedTuple):
    """What methods that are compared have in common."""

    backbone: str
    dataset: str
    evaluation: str

    @property
    def file_name(self) -> str:
        """Its parts as the beginning of a file's name, with a hash if characters had to be replaced."""
        name = re.sub(r"[^\w.-]+", "_", "-".join(self))[:LONGEST_FILE]
        if len("-".join(self)) <= LONGEST_FILE and all(re.fullmatch(r"[\w.]+", part) for part in self):
            return name
        return f"{name}-{hashlib.sha256(json.dumps(list(self)).encode()).hexdigest()[:8]}"


class Stat(NamedTuple):
    """Mean, standard deviation (None for a single value) and number of values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """The runs of a method that differ only by seed; ``shots`` None means all images, 0 zero-shot.

    Deviations are those of a sample (ddof = 1) or, with ``population``, of a population (ddof = 0, as in CoOp).
    ``published`` is what stands beside a number, by its name (`kravl.report.published.compare.with_published`).
    """

    setting: Setting
    method: str
    shots: int | float | None
    runs: tuple[FinishedRun, ...]
    population: bool = False
    published: Mapping[str, PublishedRow] = dataclasses.field(default_factory=dict)

    @property
    def amount(self) -> str:
        """``shots`` as text: a number, or ``all``."""
        return "all" if self.shots is None else str(self.shots)

    @property
    def title(self) -> str:
        """The method's name as papers write it."""
        return shown(self.method)

    @property
    def names(self) -> list[str]:
        """The names of all numbers that any of the runs has, the in-domain test set first."""
        return sorted({name for run in self.runs for name in run.values}, key=lambda n: (not n.startswith("test/"), n))

    def stat(self, name: str) -> Stat | None:
        """The statistic over the runs that have the number ``name``; None if none has."""
        return statistic([run.values[name] for run in self.runs if name in run.values], self.population)

    def median(self, name: str) -> float | None:
        """Over the runs that have the number ``name``: of seconds, which one run that was held up does not decide."""
        values = [run.values[name] for run in self.runs if name in run.values]
        return median(values) if values else None

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


def comparability_warnings(groups: Iterable[Group]) -> list[str]:
    """One line for each difference other than seed and method between runs that a reader would compare."""
    listed = list(groups)
    lines: list[str] = []
    for setting, members in groupby(listed, key=lambda group: group.setting):
        lines += [f"{' '.join(setting)}: {line}" for line in _within_setting(list(members))]
    trained = [group for group in listed if group.method != ZERO_SHOT]
    return [*dict.fromkeys([*_trained_on(trained), *_other_images(trained), *lines])]


def _trained_on(groups: Iterable[Group]) -> Iterator[str]:
    """A line for each run whose record says that images it is evaluated on were trained on."""
    for group in groups:
        for run in group.runs:
            if isinstance(said := run.record.get("trained_on"), list) and said:
                lines = some_of([str(line)[:200] for line in said], 3, "; ")
                yield f"{run.folder}: {lines}: these metrics are not those of new images or classes"


def _other_images(groups: Iterable[Group]) -> Iterator[str]:
    drawn: dict[tuple[str, str, str, int], set[str]] = defaultdict(set)
    for group in groups:
        for run in group.runs:
            protocol, seed = run.record["split_protocol"], run.record["split_seed"]
            drawn[group.setting.dataset, group.amount, protocol, seed].add(run.record["split_sha256"])
    for (dataset, shots, protocol, seed), hashes in drawn.items():
        if len(hashes) > 1:
            kinds = ", ".join(sorted(value[:12] for value in hashes))
            split = f"{dataset}, shots {shots}, {protocol} split_seed {seed}"
            yield f"{split}: runs were trained on different images (--where split_sha256=... selects one of {kinds})"


def _within_setting(groups: list[Group]) -> Iterator[str]:
    runs = [run for group in groups for run in group.runs]
    for field in ("split_protocol", "templates", "git_commit", "precision"):
        yield from _differing(field, field, (run.record.get(field) for run in runs))
    for package in sorted({name for run in runs for name in run.record["versions"]}):
        versions = (run.record["versions"].get(package) for run in runs)
        yield from _differing(f"version of {package}", f"versions.{package}", versions)
    for group in groups:
        if group.method == ZERO_SHOT:
            if len(group.runs) > 1:
                yield f"{len(group.runs)} different zero-shot results"
            continue
        title = f"{group.title}, shots {group.amount}"
        seeds = Counter(run.record["seed"] for run in group.runs)
        yield from (f"{title}: {count} runs have seed {seed}" for seed, count in sorted(seeds.items()) if count > 1)
        configs = [flatten(compared_settings(run.record["config"])) for run in group.runs]
        for key in sorted({key for config in configs for key in config} - OF_A_GROUP):
            lines = _differing(key, f"config.{key}", (config.get(key) for config in configs))
            yield from (f"{title}: {line}" for line in lines)


def _differing(name: str, key: str, values: Iterable[Any]) -> Iterator[str]:
    listed = list(values)
    if any(value != listed[0] for value in listed):  # cheap: thousands of runs agree in most of hundreds of keys
        distinct = sorted({json.dumps(value, ensure_ascii=False, sort_keys=True) for value in listed})
        yield f"runs differ in {name}: {' / '.join(distinct)} (--where {key}=... selects one)"
