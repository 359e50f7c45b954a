"""The signed-rank test is exact, with ties, and its correction is Holm's."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from run_records import accuracies, write_run
from scipy.stats import rankdata, wilcoxon

from kravl.report.groups import Group, group_runs
from kravl.report.runs import read_runs
from kravl.report.significance import ALL_SHOTS, compare, signed_rank, significance_table
from kravl.runtime.errors import InputError


@pytest.mark.parametrize("n", [1, 3, 6, 25, 49])
def test_the_p_value_is_scipys_exact_one(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)

    assert signed_rank(differences.tolist()) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize("differences", [[1, 1, -2, 3, -1, 0, 2, 2], [0.1, 0.2 - 0.1, -0.1], [-1, -1, -1, -1]])
def test_ties_and_zeros_are_those_of_all_signs_counted(differences: list[float]) -> None:
    nonzero = np.array([d for d in differences if d])
    ranks = rankdata(np.abs(nonzero).round(12))
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product((True, False), repeat=len(nonzero))])
    observed = ranks[nonzero > 0].sum()

    expected = min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))

    assert signed_rank(differences) == pytest.approx(expected)


def test_no_difference_at_all_has_a_p_value_of_one() -> None:
    assert signed_rank([0.0, 0.0]) == 1.0
    assert signed_rank([]) == 1.0


def groups_in(folder: Path) -> list[Group]:
    return group_runs(read_runs(folder)[0])


def test_methods_are_paired_over_data_sets_and_seeds(tmp_path: Path) -> None:
    better = {"lora": 0.0, "kra": 0.01, "full": -0.02}
    for method, dataset, shots, seed in itertools.product(better, ("dtd", "pets"), (1, 4), (1, 2, 3)):
        if (method, dataset, shots, seed) != ("full", "pets", 4, 3):  # a missing pair
            base = 0.5 + 0.1 * seed + (0.05 if dataset == "dtd" else 0) + 0.01 * shots
            metrics = accuracies(base + better[method] * (1 + 0.1 * seed))
            folder = tmp_path / f"{method}{dataset}{shots}{seed}"
            write_run(folder, method=method, dataset=dataset, shots=shots, seed=seed, metrics=metrics)

    compared = {(c.method, c.amount): c for c in compare(groups_in(tmp_path), "lora")}

    assert {amount for _, amount in compared} == {"1", "4", ALL_SHOTS}
    kra, full = compared["kra", ALL_SHOTS], compared["full", ALL_SHOTS]
    assert (kra.pairs, kra.won, kra.lost, kra.equal) == (12, 12, 0, 0)
    assert (full.pairs, full.won, full.lost) == (11, 0, 11)
    assert kra.difference == pytest.approx(0.012)
    assert (kra.p, full.p) == (pytest.approx(2 / 2**12), pytest.approx(2 / 2**11))
    assert (kra.p_holm, full.p_holm) == (pytest.approx(2 * 2 / 2**12), pytest.approx(2 / 2**11))
    assert compared["kra", "1"].p == pytest.approx(2 / 2**6)
    [row] = [r for r in significance_table([kra], "lora") if r[0] == "KRAdapter"]
    assert row[1:] == ["clip_vitb16", "test/accuracy", ALL_SHOTS, "12", "+1.2", "12/0/0", "0.0005", "0.0010"]


def test_zero_shot_is_a_baseline_that_stands_beside_each_seed_of_its_set(tmp_path: Path) -> None:
    zero_shot = {"dtd": 0.40, "pets": 0.60}
    for dataset, shots, seed in itertools.product(zero_shot, (1, 4), (1, 2, 3)):
        gain = 0.05 if dataset == "dtd" else -0.01
        metrics = accuracies(zero_shot[dataset] + gain * seed)
        folder = tmp_path / f"{dataset}{shots}{seed}"
        write_run(folder, method="kra", dataset=dataset, shots=shots, seed=seed, metrics=metrics,
                  zero_shot=accuracies(zero_shot[dataset]))  # fmt: skip

    compared = {c.amount: c for c in compare(groups_in(tmp_path), "zero-shot")}

    assert {c.method for c in compared.values()} == {"kra"}
    assert (compared["4"].won, compared["4"].lost) == (3, 3)
    assert compared[ALL_SHOTS].pairs == 12
    assert compared[ALL_SHOTS].difference == pytest.approx((0.05 - 0.01) * 2 / 2)


def test_a_correction_never_falls_below_that_of_a_smaller_p_value(tmp_path: Path) -> None:
    differences = {"a": [1, 1, 1, 1, 1], "b": [1, 1, 1, 1, -1], "lora": [0] * 5}
    for method, each in differences.items():
        for seed, difference in enumerate(each):
            write_run(tmp_path / f"{method}{seed}", method=method, seed=seed,
                      metrics=accuracies(0.5 + 0.01 * difference * (seed + 1)))  # fmt: skip

    a, b = (next(c for c in compare(groups_in(tmp_path), "lora") if c.method == name) for name in "ab")

    assert a.p_holm == pytest.approx(2 * a.p)
    assert b.p_holm == max(b.p, a.p_holm)


def test_an_unknown_baseline_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path / "a")

    with pytest.raises(InputError, match="unknown baseline 'krra': did you mean 'kra'"):
        compare(groups_in(tmp_path), "krra")
