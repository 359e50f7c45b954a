"""Out-of-domain against in-domain accuracy: WiSE-FT, effective robustness (https://arxiv.org/abs/2007.00644)."""

from collections import defaultdict
from collections.abc import Iterable
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
    """(alpha, in domain, out of domain) along WiSE-FT's alpha, averaged over the runs; empty without inner points.

    Runs without a zero-shot evaluation start from the zero-shot group of their setting among ``others``.
    """
    pretrained = next((o for o in others if o.method == ZERO_SHOT and o.setting == group.setting), None)
    known = {key: stat.mean for key in (ID, OOD) if pretrained and (stat := pretrained.stat(key))}
    points: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for run in group.runs:
        record = run.record
        if not record["wise_ft"] or group.method == ZERO_SHOT:
            continue
        ends = [{"alpha": 0.0, **(record["zero_shot"] or known)}, {"alpha": 1.0, **record["metrics"]}]
        for point in (*ends, *record["wise_ft"]):
            if point.get(ID) is not None and point.get(OOD) is not None:
                points[point["alpha"]].append((point[ID], point[OOD]))
    return [(alpha, fmean(x for x, _ in pairs), fmean(y for _, y in pairs)) for alpha, pairs in sorted(points.items())]
