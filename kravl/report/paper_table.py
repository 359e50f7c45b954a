"""The table of a paper: methods in rows, data sets and their mean in columns, and what each method costs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kravl.report.groups import Group, Stat, amounts, mean_over_sets
from kravl.report.published.compare import Match
from kravl.report.published.rows import PublishedRow, read_names
from kravl.report.tables import TRAIN_SECONDS, Cells, gap_cell, percent, published_cell, seconds
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT

METRIC_TITLES = {  # each has a table of its own, if any run has the metric
    "test/accuracy": "accuracy on the test set",
    "new/accuracy": "accuracy on the new classes",
    "ood_mean": "mean accuracy out of distribution",
    "harmonic_mean": "harmonic mean of test set and out of distribution",
}
MISSING = "–"
COSTS = ("parameters", "memory GB", "train s (median)")


@dataclass(frozen=True)
class PaperRow:
    """A method: for each data set and for their mean the statistic over seeds (None: not run), and its costs.

    ``published`` is what stands beside the last of the statistics.
    """

    method: str
    stats: tuple[Stat | None, ...]
    costs: tuple[str, ...]
    published: PublishedRow | None = None


@dataclass(frozen=True)
class Overview:
    """One metric of one backbone at one number of shots; ``columns`` are the data sets, the mean last if several."""

    backbone: str
    amount: str
    metric: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{self.backbone}, {self.amount} shots: {METRIC_TITLES[self.metric]}"

    def best(self, column: int) -> str:
        """The text of the best method's cell, not counting zero-shot."""
        means = [format_mean(row.stats[column]) for row in self.rows if row.stats[column] and row.method != ZERO_SHOT]
        return max(means, key=float, default="")


def overviews(groups: Sequence[Group], planned: Mapping[str, Sequence[str]] | None = None) -> list[Overview]:
    """One for each backbone, metric and number of shots that occurs.

    Args:
        planned: a study's ``methods`` and ``datasets``, so that those not run yet are visible.
    """
    trained = [group for group in groups if group.method != ZERO_SHOT]
    result = []
    for backbone in dict.fromkeys(group.setting.backbone for group in trained):
        members = [group for group in groups if group.setting.backbone == backbone]
        for metric in METRIC_TITLES:
            for amount in amounts(trained):
                compared = [g for g in members if g.amount == amount or g.method == ZERO_SHOT]
                if any(group.stat(metric) for group in compared if group.method != ZERO_SHOT):
                    result.append(_overview(compared, (backbone, amount, metric), planned or {}))
    return result


def beside_published(listed: Sequence[Overview], matches: Sequence[Match]) -> list[Overview]:
    """The overviews with what is published of their last column: a single set, or the mean over the same sets.

    Published harmonic means are of two means over sets, which no cell of an overview is.
    """
    known = {(m.row.backbone, m.dataset, m.row.method, m.amount, m.row.metric): m.row for m in matches}
    completed = []
    for overview in listed:
        last = _last_column(overview)
        rows = []
        for row in overview.rows:
            amount = "0" if row.method == ZERO_SHOT else overview.amount
            found = known.get((overview.backbone, last, row.method, amount, overview.metric)) if row.stats[-1] else None
            rows.append(replace(row, published=found))
        completed.append(replace(overview, rows=tuple(rows)))
    return completed


def _last_column(overview: Overview) -> str:
    """The name in published tables of what the last column is: a set, or a mean over sets."""
    if len(overview.columns) == 1:
        return overview.columns[0]
    if overview.metric == "harmonic_mean":
        return ""
    sets = set(overview.columns[:-1])
    return next((name for name, members in read_names().means.items() if set(members or ()) == sets), "")


def _overview(groups: Sequence[Group], names: tuple[str, str, str], planned: Mapping[str, Sequence[str]]) -> Overview:
    metric = names[2]
    sets = list(dict.fromkeys((g.setting.dataset, g.setting.evaluation) for g in groups if g.stat(metric)))
    missing = [name for name in planned.get("datasets", ()) if name not in {dataset for dataset, _ in sets}]
    datasets = [dataset for dataset, _ in sets]
    titles = [dataset if datasets.count(dataset) == 1 else f"{dataset} ({evaluation})" for dataset, evaluation in sets]
    cells = {(g.method, (g.setting.dataset, g.setting.evaluation)): g for g in groups}
    methods = dict.fromkeys([g.method for g in groups if g.method == ZERO_SHOT] + [g.method for g in groups])
    order = [*methods, *(name for name in planned.get("methods", ()) if name not in methods)]
    rows = []
    for method in order:
        in_sets = [cells.get((method, key)) for key in sets]
        present = [group for group in in_sets if group]
        stats = [group.stat(metric) if group else None for group in in_sets] + [None] * len(missing)
        if len(stats) > 1:
            stats.append(mean_over_sets(present, metric) if len(present) == len(stats) else None)
        rows.append(PaperRow(method, tuple(stats), _costs(present)))
    columns = (*titles, *missing, *(["mean"] if len(titles) + len(missing) > 1 else []))
    return Overview(*names, columns, tuple(rows))


def _costs(groups: Sequence[Group]) -> tuple[str, ...]:
    """The ranges over data sets of the means over seeds, of seconds of the medians."""
    parameters = _values(groups, "trainable_parameters")
    memory = [value / 1e9 for value in _values(groups, "peak_memory_bytes")]
    return (
        _range(parameters, "{:,.0f}".format),
        _range(memory, "{:.1f}".format),
        _range([value for g in groups if (value := g.median(TRAIN_SECONDS)) is not None], seconds),
    )


def _values(groups: Iterable[Group], name: str) -> list[float]:
    return [stat.mean for group in groups if (stat := group.stat(name))]


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    if not values:
        return ""
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"


def format_mean(stat: Stat | None) -> str:
    """In percent, as in a cell."""
    return MISSING if stat is None else percent(stat.mean)


def format_stat(stat: Stat | None, seeds: int) -> str:
    """A cell: mean ± deviation in percent, and n if it is not ``seeds``."""
    if stat is None:
        return MISSING
    spread = "" if stat.std is None else f" ± {100 * stat.std:.1f}"
    return f"{format_mean(stat)}{spread}{f' (n={stat.n})' if stat.n != seeds else ''}"


def most_seeds(overview: Overview) -> int:
    """The largest n of any cell."""
    return max((stat.n for row in overview.rows for stat in row.stats if stat), default=0)


def overview_table(overview: Overview, bold: str = "") -> Cells:
    """Header and rows as text; ``bold`` is put around the best method's cell in each column."""
    seeds = most_seeds(overview)
    best = [overview.best(column) for column in range(len(overview.columns))]
    beside = any(row.published for row in overview.rows)
    rows = [["method", *overview.columns, *(["published", "gap"] if beside else []), *COSTS]]
    for row in overview.rows:
        expected = [1 if row.method == ZERO_SHOT else seeds] * len(best)
        cells = [format_stat(stat, n) for stat, n in zip(row.stats, expected, strict=True)]
        leads = [row.method != ZERO_SHOT and format_mean(s) == b for s, b in zip(row.stats, best, strict=True)]
        cells = [f"{bold}{c}{bold}" if led else c for c, led in zip(cells, leads, strict=True)]
        pair = [published_cell(row.published), gap_cell(row.stats[-1], row.published)] if beside else []
        rows.append([shown(row.method), *cells, *pair, *row.costs])
    return rows
