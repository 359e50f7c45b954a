"""Whether accuracy follows the effective rank of the update: one point a run, and rank correlations with intervals."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from kravl.report.figures.drawing import LINE, STYLE, Place, label_beside, mark_of, save, settle
from kravl.report.groups import Group
from kravl.report.robustness import ID, OOD
from kravl.tracking.run_folder import ZERO_SHOT

RANK = "effective_rank"
DRAWS, FEWEST = 2000, 4  # of the bootstrap, and the fewest runs (or methods) whose correlation is given
COVERED = (2.5, 97.5)  # percentiles


class Point(NamedTuple):
    """A run's effective rank and its accuracy, with what it is compared within."""

    method: str
    amount: str
    rank: float
    accuracy: float


class Correlation(NamedTuple):
    """Spearman's, and the bounds of its bootstrapped 95 % interval; None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "not known"
        bounds = "" if self.low is None else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.value:+.2f}{bounds}"


def points_of(groups: Sequence[Group], metric: str) -> list[Point]:
    """A point for each trained run that has the ``metric`` and an update of known rank."""
    return [
        Point(group.method, group.amount, run.values[RANK], run.values[metric])
        for group in groups
        if group.method != ZERO_SHOT
        for run in group.runs
        if metric in run.values and RANK in run.values
    ]


def between_methods(points: Sequence[Point]) -> Correlation:
    """Over the means of each method, differences between numbers of shots taken out; methods are resampled."""
    centred = _centred(points, lambda point: point.amount)
    members: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for point, values in zip(points, centred, strict=True):
        members[point.method].append(values)
    return correlate([(fmean(x for x, _ in each), fmean(y for _, y in each)) for each in members.values()])


def within_methods(points: Sequence[Point]) -> Correlation:
    """Over runs, as differences from the mean of their method and number of shots; runs are resampled."""
    return correlate(_centred(points, lambda point: (point.method, point.amount)))


def _centred(points: Sequence[Point], key: Callable[[Point], object]) -> list[tuple[float, float]]:
    members: dict[object, list[Point]] = defaultdict(list)
    for point in points:
        members[key(point)].append(point)
    means = {k: (fmean(p.rank for p in each), fmean(p.accuracy for p in each)) for k, each in members.items()}
    return [(p.rank - means[key(p)][0], p.accuracy - means[key(p)][1]) for p in points]


def correlate(pairs: Sequence[tuple[float, float]]) -> Correlation:
    """Spearman's rank correlation (Am. J. Psychol. 1904) with the percentile interval of a bootstrap of the pairs."""
    values = np.array(pairs, dtype=float).reshape(-1, 2).round(12)
    if len(values) < FEWEST or (value := _spearman(values)) is None:
        return Correlation(None)
    generator = np.random.default_rng(0)
    picks = generator.integers(len(values), size=(DRAWS, len(values)))
    drawn = [each for pick in picks if (each := _spearman(values[pick])) is not None]
    low, high = np.percentile(drawn, COVERED) if drawn else (None, None)
    return Correlation(value, low, high)


def _spearman(values: np.ndarray) -> float | None:
    ranks = rankdata(values, axis=0)
    spread = ranks.std(axis=0)
    if not spread.all():
        return None
    centred = ranks - ranks.mean(axis=0)
    return float((centred[:, 0] * centred[:, 1]).mean() / spread.prod())


def draw_rank(groups: Sequence[Group], folder: Path) -> tuple[str, str] | None:
    """Draw the ``groups`` of one setting as PNG and SVG; the PNG's name and its caption, or None with a single rank."""
    metrics = [name for name in (ID, OOD) if len({point.rank for point in points_of(groups, name)}) > 1]
    if not metrics:
        return None
    captions = []
    with matplotlib.rc_context(STYLE):
        methods = len({point.method for point in points_of(groups, metrics[0])})
        size = (11 if len(metrics) == 2 else 6, max(4.0, 1.0 + methods * LINE / 72))
        figure = Figure(figsize=size, layout="constrained")
        for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            points = points_of(groups, metric)
            where = "in domain" if metric == ID else "mean of the other sets"
            _scatter(axes, points, where)
            between, within = between_methods(points), within_methods(points)
            captions.append(f"{where}: between methods {between}, within methods {within}")
        figure.suptitle(", ".join(groups[0].setting))
        settle(figure)
        name = f"{groups[0].setting.file_name}-effective_rank.png"
        save(figure, folder / name)
    return name, (
        "effective rank of the update against accuracy, a point for each run; Spearman's correlation "
        f"{'; '.join(captions)}; in brackets 95 % of a bootstrap over methods, or over runs; differences between "
        "numbers of shots are taken out"
    )


def _scatter(axes: Axes, points: Sequence[Point], where: str) -> None:
    places = []
    for method in dict.fromkeys(point.method for point in points):
        own = [point for point in points if point.method == method]
        x, y = [point.rank for point in own], [100 * point.accuracy for point in own]
        axes.plot(x, y, ls="", alpha=0.8, **mark_of(method))
        places.append(Place.of(method, max(x), y[x.index(max(x))]))
    label_beside(axes, places)
    axes.set(xlabel="effective rank of the update, mean over matrices", ylabel=f"{where}, top-1 %", title=where)
