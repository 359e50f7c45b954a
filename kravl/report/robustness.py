"""Out-of-domain against in-domain accuracy: WiSE-FT, effective robustness (https://arxiv.org/abs/2007.00644)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import exp, log
from statistics import correlation, fmean, linear_regression
from typing import NamedTuple

from kravl.report.groups import Group
from kravl.tracking.run_folder import ZERO_SHOT

ID, OOD = "test/accuracy", "ood_mean"
BASELINES = (ZERO_SHOT, "linear_probe", "zs_lp", "logistic_regression")  # linear models of the pretrained features
FEWEST = 3  # points: any two lie on a line


class RobustnessLine(NamedTuple):
    """logit(out of domain) = slope * logit(in domain) + intercept, fitted by least squares to ``points`` points."""

    slope: float
    intercept: float
    correlation: float
    points: int

    def expected(self, in_domain: float) -> float:
        """The out-of-domain accuracy that the line predicts for an in-domain one, both fractions."""
        return expit(self.slope * logit(in_domain) + self.intercept)


def logit(p: float) -> float:
    """log(p / (1 - p)), of a fraction strictly between 0 and 1."""
    return log(p / (1 - p))


def expit(x: float) -> float:
    """Inverse of `logit`."""
    return 1 / (1 + exp(-x))


def robustness_line(groups: Iterable[Group]) -> RobustnessLine | None:
    """The line through the BASELINES among the ``groups`` of one setting; None if they are too few to fit one.

    Each zero-shot or linear-probe group (its mean over seeds) is a point; one at exactly 0 or 1 has no logit.
    """
    points = []
    for group in groups:
        x, y = group.stat(ID), group.stat(OOD)
        if group.method in BASELINES and x and y and 0 < x.mean < 1 and 0 < y.mean < 1:
            points.append((logit(x.mean), logit(y.mean)))
    xs, ys = zip(*points, strict=True) if points else ((), ())
    if len(set(xs)) < FEWEST or len(set(ys)) < 2:
        return None
    slope, intercept = linear_regression(xs, ys)
    return RobustnessLine(slope, intercept, correlation(xs, ys), len(points))


def effective_robustness(line: RobustnessLine, group: Group) -> float | None:
    """How far ``group``'s mean out-of-domain accuracy lies above the line, as a fraction."""
    x, y = group.stat(ID), group.stat(OOD)
    return y.mean - line.expected(x.mean) if x and y and 0 < x.mean < 1 else None


def wise_ft_line(group: Group, others: Iterable[Group]) -> list[tuple[float, float, float]]:
    """(alpha, in domain, out of domain) along WiSE-FT's alpha, from zero-shot to ``group``, as these are drawn.

    Each point is a mean over all runs of the group: an alpha that some were not evaluated at is left out. Empty without
    inner points. Where no zero-shot group of the setting is among ``others``, the runs' own results are the start.
    """
    shared = _shared_points(group)
    end = _drawn(group)
    if not shared or end is None:
        return []
    zero_shot = next((o for o in others if o.method == ZERO_SHOT and o.setting == group.setting), None)
    if start := _drawn(zero_shot) if zero_shot else None:
        before = [start]
    else:
        before = [pair for run in group.runs if (pair := _pair(run.record["zero_shot"] or {}))]
    points = {**({0.0: before} if before else {}), **shared, 1.0: [end]}
    return [(alpha, fmean(x for x, _ in pairs), fmean(y for _, y in pairs)) for alpha, pairs in sorted(points.items())]


def _drawn(group: Group) -> tuple[float, float] | None:
    """Where the mark of a group is."""
    x, y = group.stat(ID), group.stat(OOD)
    return (x.mean, y.mean) if x and y else None


def curve_notes(groups: Iterable[Group]) -> list[str]:
    """A line for each group that has points of WiSE-FT's curve for some of its runs alone, so that none is drawn."""
    lines = []
    for group in groups:
        have = sum(bool(run.record["wise_ft"]) for run in group.runs)
        if group.method != ZERO_SHOT and have and not _shared_points(group):
            lines.append(
                f"{' '.join(group.setting)}: {group.title}, shots {group.amount}: WiSE-FT's curve is left out, as "
                f"{have} of {len(group.runs)} runs have points of it (alphas), or not the same"
            )
    return lines


def _shared_points(group: Group) -> dict[float, list[tuple[float, float]]]:
    """The pairs of `_pair` of all runs by the alphas strictly between 0 and 1 at which every run has one."""
    if group.method == ZERO_SHOT:
        return {}
    points: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for run in group.runs:
        by_alpha = {point["alpha"]: pair for point in run.record["wise_ft"] if (pair := _pair(point))}
        for alpha, pair in by_alpha.items():
            points[alpha].append(pair)
    return {alpha: pairs for alpha, pairs in points.items() if len(pairs) == len(group.runs) and 0 < alpha < 1}


def _pair(metrics: Mapping[str, float | None]) -> tuple[float, float] | None:
    """In and out of domain; None unless both are known."""
    x, y = metrics.get(ID), metrics.get(OOD)
    return None if x is None or y is None else (x, y)
