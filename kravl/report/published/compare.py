"""Runs beside published numbers: which row stands beside which group, the gap, and the rows as a table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any, NamedTuple

from kravl.report.groups import Group, Stat, mean_over_sets
from kravl.report.published.rows import TEST, PublishedRow, read_names, read_published
from kravl.report.tables import Cells, gap_cell, percent, published_cell
from kravl.runtime.errors import InputError, nearest

OOD, HARMONIC = "ood_mean", "harmonic_mean"


@dataclass(frozen=True)
class Match:
    """A group's statistic, or that of the mean over several sets, and the published row of the same."""

    dataset: str
    amount: str
    stat: Stat
    row: PublishedRow

    @property
    def gap(self) -> float:
        """How far the runs are above what is published, as a fraction."""
        return self.stat.mean - self.row.value


class _Key(NamedTuple):
    method: str
    backbone: str
    shots: str
    protocol: str


def with_published(groups: Iterable[Group], rows: Sequence[PublishedRow] | None = None) -> list[Group]:
    """Each group with the rows that agree with it in method, backbone, set, shots and protocol; of kravl's by default.

    The number on the test set does not depend on what else is evaluated; any other must be of the same evaluation. Runs
    that are evaluated on validation images, or on other classes than the row's, stand beside none.
    """
    by_key = _by_key(read_published() if rows is None else rows)
    return [replace(group, published={row.metric: row for row in _of_set(group, by_key)}) for group in groups]


def _by_key(rows: Iterable[PublishedRow]) -> Mapping[_Key, list[PublishedRow]]:
    by_key: dict[_Key, list[PublishedRow]] = defaultdict(list)
    for row in rows:
        if not row.variant:
            by_key[_Key(row.method, row.backbone, row.shots, row.protocol)].append(row)
    return by_key


def _of_set(group: Group, by_key: Mapping[_Key, list[PublishedRow]]) -> Iterator[PublishedRow]:
    return (row for row in _candidates(group, by_key) if row.dataset == group.setting.dataset)


def _candidates(group: Group, by_key: Mapping[_Key, list[PublishedRow]]) -> Iterator[PublishedRow]:
    """Rows that agree with the group in all but the set."""
    protocols = {run.record["split_protocol"] for run in group.runs}
    if len(protocols) > 1:
        return
    for row in by_key.get(_Key(group.method, group.setting.backbone, group.amount, *protocols), ()):
        same_sets = row.metric == TEST or row.evaluation == group.setting.evaluation
        if same_sets and all(_is_of(run.record, row) for run in group.runs):
            yield row


def _is_of(record: Mapping[str, Any], row: PublishedRow) -> bool:
    """Whether a run has the row's classes and prompt, and its test images are test images."""
    config = record["config"]
    data, evaluation = (config.get(key) if isinstance(config.get(key), dict) else {} for key in ("data", "evaluation"))
    held_out = evaluation.get("held_out") is True and evaluation.get("name") == record["evaluation"]
    classes = "base" if row.evaluation == "base_to_new" else "all"
    if held_out or data.get("classes", "all") != classes:
        return False
    return row.template is None or record["templates"] == [row.template]


def published_matches(groups: Sequence[Group], rows: Sequence[PublishedRow] | None = None) -> list[Match]:
    """Every number of the ``groups`` of `with_published` that a row stands beside, then every mean over sets."""
    matches = []
    for group in groups:
        for metric, row in group.published.items():
            if stat := group.stat(metric):
                matches.append(Match(group.setting.dataset, group.amount, stat, row))
    return [*matches, *_means(groups, _by_key(read_published() if rows is None else rows))]


def _means(groups: Iterable[Group], by_key: Mapping[_Key, list[PublishedRow]]) -> Iterator[Match]:
    members: dict[tuple[str, PublishedRow], dict[str, Group]] = defaultdict(dict)
    for group in groups:
        for row in _candidates(group, by_key):
            if group.setting.dataset in (read_names().means.get(row.dataset) or ()):
                members[group.setting.evaluation, row][group.setting.dataset] = group
    for (_, row), of_set in members.items():
        complete = len(of_set) == len(read_names().means[row.dataset] or ())
        if complete and (stat := _mean(list(of_set.values()), row.metric)):
            yield Match(row.dataset, row.shots, stat, row)


def _mean(groups: Sequence[Group], metric: str) -> Stat | None:
    """Over sets, as papers compute it: a harmonic mean is that of the two means."""
    if metric != HARMONIC:
        return mean_over_sets(groups, metric)
    base, new = mean_over_sets(groups, TEST), mean_over_sets(groups, OOD)
    if base is None or new is None or base.mean + new.mean == 0:
        return None
    return Stat(2 * base.mean * new.mean / (base.mean + new.mean), None, min(base.n, new.n))


def matches_table(matches: Sequence[Match]) -> Cells:
    """Header and a row for each of the ``matches``."""
    rows = [["method", "backbone", "set", "shots", "metric", "protocol", "here", "published", "gap", "source"]]
    for match in matches:
        row, stat = match.row, match.stat
        here = percent(stat.mean) + (f" ± {percent(stat.std)}" if stat.std is not None else "") + f" (n={stat.n})"
        cells = [row.title, row.backbone, match.dataset, match.amount, row.metric, row.protocol, here]
        rows.append([*cells, published_cell(row), gap_cell(stat, row), _origin(row)])
    return rows


def rows_table(rows: Iterable[PublishedRow]) -> Cells:
    """Header and every one of the ``rows``, for a reader without runs."""
    cells = [["method", "backbone", "set", "shots", "metric", "protocol", "published", "seeds", "source"]]
    for row in rows:
        name = f"{row.title} ({row.variant})" if row.variant else row.title
        plain = row.metric == TEST and row.evaluation == "in_domain"
        metric = row.metric if plain else f"{row.metric}, {row.evaluation}"
        seeds = "" if row.seeds is None else str(row.seeds)
        where = [name, row.backbone, row.dataset, row.shots, metric, row.protocol]
        prompt = f"prompt: {row.template}" if row.template else ""
        source = [f"{row.paper}: {_origin(row)}", row.note, prompt]
        cells.append([*where, published_cell(row), seeds, "; ".join(filter(None, source))])
    return cells


def _origin(row: PublishedRow) -> str:
    error = f" ± {row.error:g}" if isinstance(row.error, float) else f", error {row.error}" if row.error else ""
    return f"{row.place} ({row.read}{error}), {row.url.removeprefix('https://')}"


def select_published(pattern: str, rows: Sequence[PublishedRow] | None = None) -> list[PublishedRow]:
    """The rows of which a name (method, backbone, set, evaluation) matches a shell pattern; all of them for ''.

    Raises:
        InputError: none does; with the nearest names.
    """
    listed = list(read_published() if rows is None else rows)
    wanted = pattern.lower()
    named = [(row, _names_of(row)) for row in listed]
    found = [row for row, names in named if not wanted or any(fnmatch(name.lower(), wanted) for name in names)]
    if not found:
        near = nearest(pattern, sorted({name for _, names in named for name in names}))
        raise InputError(f"no published row is of {pattern!r}; the nearest names are {', '.join(near)}")
    return found


def _names_of(row: PublishedRow) -> tuple[str, ...]:
    return row.method, row.title, row.backbone, row.dataset, row.evaluation
