"""Whether a method differs from a baseline: the exact Wilcoxon signed-rank test, and Holm's correction.

Wilcoxon, Biometrics Bulletin 1945, https://doi.org/10.2307/3001968; Holm, Scandinavian Journal of Statistics 1979.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from kravl.report.groups import Group, amounts
from kravl.report.tables import Cells
from kravl.runtime.errors import unknown
from kravl.tracking.methods import shown
from kravl.tracking.run_folder import ZERO_SHOT

TESTED_METRICS = ("test/accuracy", "ood_mean")
TEST = (
    "two-sided exact Wilcoxon signed-rank test of the differences in accuracy, one pair for each data set and seed "
    "(in rows of all shots, each number of shots too); differences of zero are left out, ties share their mean rank. "
    "Holm's correction is over the methods of one backbone, metric and row of shots. Seeds of one data set share its "
    "test images, so that pairs are not independent and small p-values are too small."
)
ALL_SHOTS = "all shots"
Key = tuple[str, str, str, int]  # data set, evaluation, shots, seed


@dataclass(frozen=True)
class Comparison:
    """``method`` against the baseline: mean difference as a fraction, pairs won, lost and equal, and p-values."""

    backbone: str
    metric: str
    amount: str
    method: str
    difference: float
    won: int
    lost: int
    equal: int
    p: float
    p_holm: float

    @property
    def pairs(self) -> int:
        """How many pairs were compared."""
        return self.won + self.lost + self.equal


def compare(groups: Sequence[Group], baseline: str) -> list[Comparison]:
    """Every method against ``baseline``, by backbone, metric and shots, and over all shots if there are several.

    The baseline may be zero-shot, whose one number for a data set stands beside each seed.

    Raises:
        InputError: no run has the method ``baseline``.
    """
    methods = {group.method for group in groups}
    if baseline not in methods:
        raise unknown("baseline", baseline, methods)
    comparisons = []
    for backbone in dict.fromkeys(group.setting.backbone for group in groups):
        own = [group for group in groups if group.setting.backbone == backbone]
        trained = [group for group in own if group.method != ZERO_SHOT]
        untrained = [group for group in own if group.method == baseline == ZERO_SHOT]
        shots = amounts(trained)
        for metric in TESTED_METRICS:
            for amount in [*shots, ALL_SHOTS] if len(shots) > 1 else shots:
                compared = [*untrained, *(group for group in trained if amount in (group.amount, ALL_SHOTS))]
                comparisons += _corrected(list(_against(compared, baseline, (backbone, metric, amount))))
    return comparisons


def _against(groups: Sequence[Group], baseline: str, names: tuple[str, str, str]) -> Iterator[Comparison]:
    values: dict[str, dict[Key, float]] = defaultdict(dict)
    for group in groups:
        values[group.method] |= _by_pair(group, names[1])
    reference = values.pop(baseline, {})
    if baseline == ZERO_SHOT:
        of_set = {key[:2]: value for key, value in reference.items()}
        reference = {key: of_set[key[:2]] for each in values.values() for key in each if key[:2] in of_set}
    for method, accuracy in values.items():
        differences = [accuracy[key] - reference[key] for key in accuracy if key in reference]
        if differences:
            won, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
            p = signed_rank(differences)
            equal = len(differences) - won - lost
            yield Comparison(*names, method, fmean(differences), won, lost, equal, p, p)


def _by_pair(group: Group, metric: str) -> dict[Key, float]:
    """The mean over runs with the same data set and seed: a single run, unless different runs were mixed."""
    members: dict[Key, list[float]] = defaultdict(list)
    for run in group.runs:
        if metric in run.values:
            key = group.setting.dataset, group.setting.evaluation, group.amount, run.record["seed"]
            members[key].append(run.values[metric])
    return {key: fmean(numbers) for key, numbers in members.items()}


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test from its exact distribution given the ties; 1 if all are zero.

    The probability of each sum of positive ranks is computed by adding one rank after another.
    """
    size = np.array([abs(d) for d in differences if d != 0])
    if not len(size):
        return 1.0
    _, place, counts = np.unique(size.round(12), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    doubled = (2 * last - counts + 1)[place]  # twice the mean rank of equal sizes, an integer
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] += chance[:-rank].copy()
        chance /= 2
    positive = doubled[np.array([d for d in differences if d != 0]) > 0].sum()
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return float(min(1.0, 2 * tail))


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """With Holm's p-values: the smallest p times their number, the next times one fewer, etc., never decreasing."""
    order = sorted(range(len(comparisons)), key=lambda i: comparisons[i].p)
    highest, corrected = 0.0, list(comparisons)
    for place, i in enumerate(order):
        highest = min(1.0, max(highest, (len(order) - place) * comparisons[i].p))
        corrected[i] = replace(comparisons[i], p_holm=highest)
    return corrected


def significance_table(comparisons: Sequence[Comparison], baseline: str) -> Cells:
    """Header and rows; differences in percentage points."""
    rows = [
        [
            "method",
            "backbone",
            "metric",
            "shots",
            "pairs",
            f"points over {shown(baseline)}",
            "won/lost/equal",
            "p",
            "p, Holm",
        ]
    ]
    for c in comparisons:
        ends = f"{c.won}/{c.lost}/{c.equal}"
        p = [f"{value:.4f}" if value >= 0.0001 else "<0.0001" for value in (c.p, c.p_holm)]
        rows.append(
            [shown(c.method), c.backbone, c.metric, c.amount, str(c.pairs), f"{100 * c.difference:+.1f}", ends, *p]
        )
    return rows
