"""The correlation of accuracy with effective rank: between methods, within them, and how sure it is."""

from pathlib import Path

import numpy as np
import pytest
from run_records import accuracies, write_run
from scipy.stats import spearmanr

from kravl.cli.report_figures import draw_figures
from kravl.report.figures.ranks import Point, between_methods, correlate, draw_rank, within_methods
from kravl.report.groups import group_runs
from kravl.report.runs import read_runs

METHODS = ("a", "b", "c", "d", "e")


def points(rise_between: float, rise_within: float, shots: tuple[str, ...] = ("16",)) -> list[Point]:
    """Five methods of rising rank and six runs of each, whose accuracies rise between and within methods as told."""
    return [
        Point(
            method,
            amount,
            rank=100 * i + 10 * j,
            accuracy=0.5 + rise_between * i + rise_within * j + 0.3 * (amount == "16"),
        )
        for i, method in enumerate(METHODS)
        for j in range(6)
        for amount in shots
    ]


def test_it_is_spearmans() -> None:
    generator = np.random.default_rng(1)
    pairs = [(float(x), float(y)) for x, y in generator.integers(0, 9, size=(30, 2))]

    found = correlate(pairs)

    assert found.value == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert found.low < found.value < found.high
    assert correlate(pairs) == found


@pytest.mark.parametrize("shots", [("16",), ("1", "16")])
def test_what_holds_between_methods_may_not_within_them(shots: tuple[str, ...]) -> None:
    found = points(0.1, -0.01, shots)

    assert between_methods(found).value == pytest.approx(1.0)
    assert within_methods(found).value == pytest.approx(-1.0)
    assert between_methods(points(-0.1, 0.01, shots)).value == pytest.approx(-1.0)


def test_an_interval_narrows_with_runs_and_is_absent_with_few() -> None:
    generator = np.random.default_rng(0)

    def width(count: int) -> float:
        x = generator.normal(size=count)
        found = correlate(list(zip(x, x + generator.normal(size=count), strict=True)))
        return found.high - found.low

    assert width(200) < 0.5 * width(20)
    assert str(correlate([(1.0, 2.0), (2.0, 1.0), (3.0, 3.0)])) == "not known"
    assert str(correlate([(1.0, 2.0)] * 9)) == "not known"  # no spread


def test_a_report_has_the_figure_and_says_the_correlation(tmp_path: Path) -> None:
    for i, method in enumerate(METHODS):
        for seed in (1, 2):
            rank = {"mean": 20.0 * (i + 1) + seed}
            metrics = accuracies(0.4 + 0.05 * i, 0.5 - 0.05 * i)
            changes = {"method": method, "seed": seed, "metrics": metrics, "effective_rank": rank}
            write_run(tmp_path / f"{method}{seed}", **changes)
    groups = group_runs(read_runs(tmp_path)[0])

    figures, problems = draw_figures(groups, tmp_path)

    picture = next(iter(figures.values()))[1]
    assert problems == []
    assert picture.path.name.endswith("-effective_rank.png")
    assert "in domain: between methods +1.00 [+1.00, +1.00], within methods not known" in picture.caption
    assert "mean of the other sets: between methods -1.00" in picture.caption
    assert "effective rank of the update" in picture.path.with_suffix(".svg").read_text()


def test_runs_without_an_update_have_no_such_figure(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / str(seed), seed=seed, effective_rank={})

    assert draw_rank(group_runs(read_runs(tmp_path)[0]), tmp_path) is None
