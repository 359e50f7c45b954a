"""The table of a paper: what is missing is seen, the mean is over all data sets or not there."""

from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.report.groups import group_runs
from kravl.report.paper_table import MISSING, overview_table, overviews
from kravl.report.runs import read_runs
from kravl.tracking.run_folder import ZERO_SHOT


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    accuracy = {"kra": {"dtd": 0.6, "pets": 0.8}, "lora": {"dtd": 0.5, "pets": 0.9}}
    for method, sets in accuracy.items():
        for dataset, mean in sets.items():
            for seed, beside in ((1, -0.1), (2, 0.1)):
                metrics = accuracies(mean + beside * (1 if dataset == "dtd" else -0.5))
                write_run(tmp_path / f"{method}{dataset}{seed}", seconds=10.0 * seed, method=method, dataset=dataset,
                          seed=seed, metrics=metrics, zero_shot=accuracies(0.4))  # fmt: skip
    return tmp_path


def test_methods_are_rows_and_data_sets_columns_with_their_mean(runs: Path) -> None:
    [overview] = overviews(group_runs(read_runs(runs)[0]))

    assert overview_table(overview, "**") == [
        ["method", "dtd", "pets", "mean", "parameters", "memory GB", "train s (median)"],
        [ZERO_SHOT, "40.0", "40.0", "40.0", "0", "", ""],
        ["KRAdapter", "**60.0 ± 14.1**", "80.0 ± 7.1", "**70.0 ± 3.5**", "43,008", "0.0", "15"],
        ["LoRA", "50.0 ± 14.1", "**90.0 ± 7.1**", "**70.0 ± 3.5**", "43,008", "0.0", "15"],
    ]


def test_a_population_has_the_deviation_of_all_there_is(runs: Path) -> None:
    [overview] = overviews(group_runs(read_runs(runs)[0], population=True))

    assert overview_table(overview)[2][1:4] == ["60.0 ± 10.0", "80.0 ± 5.0", "70.0 ± 2.5"]


def test_what_was_not_run_is_seen_and_has_no_mean(runs: Path) -> None:
    for seed in (1, 2):
        (runs / f"lorapets{seed}/metrics.json").unlink()
    (runs / "kradtd2/metrics.json").unlink()

    planned = {"methods": ["kra", "lora", "full"], "datasets": ["dtd", "pets"]}
    [overview] = overviews(group_runs(read_runs(runs)[0]), planned)

    _, _, kra, lora, full = overview_table(overview)
    assert kra[1:4] == ["50.0 (n=1)", "80.0 ± 7.1", "67.5 (n=1)"]
    assert lora[1:4] == ["50.0 ± 14.1", MISSING, MISSING]
    assert full[1:4] == [MISSING] * 3


def test_a_planned_data_set_without_a_run_is_a_column(runs: Path) -> None:
    [overview] = overviews(group_runs(read_runs(runs)[0]), {"datasets": ["dtd", "eurosat", "pets"]})

    assert overview.columns == ("dtd", "pets", "eurosat", "mean")
    assert overview_table(overview)[2][3:5] == [MISSING, MISSING]


def test_every_number_of_shots_and_metric_has_a_table(runs: Path) -> None:
    write_run(runs / "new", shots=4, metrics=accuracies(0.5, 0.25) | {"new/accuracy": 0.125})

    titles = [overview.title for overview in overviews(group_runs(read_runs(runs)[0]))]

    assert titles == [
        "clip_vitb16, 4 shots: accuracy on the test set",
        "clip_vitb16, 16 shots: accuracy on the test set",
        "clip_vitb16, 4 shots: accuracy on the new classes",
        "clip_vitb16, 4 shots: mean accuracy out of distribution",
        "clip_vitb16, 4 shots: harmonic mean of test set and out of distribution",
    ]
