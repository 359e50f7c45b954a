"""Tables are in percent with deviations, CSV is in fractions; no name breaks them."""

import csv
from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.report.groups import Group, group_runs
from kravl.report.paper_table import overview_table, overviews
from kravl.report.runs import read_runs
from kravl.report.tables import escape_markdown, group_caption, group_table, markdown_rows, write_csv


def groups_in(folder: Path) -> list[Group]:
    return group_runs(read_runs(folder)[0])


def test_a_row_is_in_percent_with_deviation_parameters_rank_and_seconds(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 0.5), (2, 0.6)):
        write_run(tmp_path / str(seed), seconds=10.0 * seed, seed=seed, metrics=accuracies(accuracy, 0.25))

    header, row = group_table(groups_in(tmp_path))

    assert header[:7] == ["method", "shots", "n", "test", "sketch", "OOD mean", "harmonic mean"]
    assert header[7:] == ["trainable", "eff. rank", "train s (median)"]
    assert row[:7] == ["KRAdapter", "16", "2", "55.0 ± 7.1", "25.0 ± 0.0", "25.0 ± 0.0", "34.3 ± 1.4"]
    assert row[7:] == ["43,008", "20.0 ± 0.0", "15"]


def test_a_single_seed_shows_no_deviation_and_empty_columns_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics=accuracies(0.5), effective_rank={})

    assert group_table(groups_in(tmp_path)) == [
        ["method", "shots", "n", "test", "trainable"],
        ["KRAdapter", "16", "1", "50.0", "43,008"],
    ]


def test_a_run_that_was_held_up_does_not_decide_how_long_a_method_takes(tmp_path: Path) -> None:
    for seed, seconds in enumerate((8.0, 9.0, 4000.0), start=1):
        write_run(tmp_path / str(seed), seconds=seconds, seed=seed, metrics=accuracies(0.5))
    groups = groups_in(tmp_path)

    header, row = group_table(groups)
    [overview] = overviews(groups)

    assert dict(zip(header, row, strict=True))["train s (median)"] == "9.0"
    assert overview_table(overview)[1][-1] == "9.0"
    assert "seconds of training are medians" in group_caption(groups)
    assert groups[0].stat("train_seconds").mean == pytest.approx(1339)  # type: ignore[union-attr]


def test_a_cell_of_fewer_runs_than_its_row_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics=accuracies(0.5))
    write_run(tmp_path / "b", seed=2, metrics=accuracies(0.5, 0.25))

    header, row = group_table(groups_in(tmp_path))

    assert dict(zip(header, row, strict=True))["sketch"] == "25.0 (n=1)"


def test_the_short_table_has_the_test_set_and_the_means_only(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics=accuracies(0.5, 0.25))

    [header, _] = group_table(groups_in(tmp_path), every_set=False)

    assert header[3:6] == ["test", "OOD mean", "harmonic mean"]


def test_markdown_escapes_what_would_break_a_table(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="kra|r=4 x", dataset="<b>d|t")

    lines = markdown_rows(group_table(groups_in(tmp_path)))

    assert lines[2].startswith("| kra\\|r=4 x | 16 | 1 | 50.0 |")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert escape_markdown("<b>d|t [a](b) `c` \\") == "&lt;b>d\\|t \\[a](b) \\`c\\` \\\\"


def test_csv_holds_every_number_as_a_fraction(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 0.5), (2, 0.75)):
        write_run(
            tmp_path / f"runs/{seed}", seconds=10.0, seed=seed, metrics={"test/accuracy": accuracy, "test/ece": 0.125}
        )

    write_csv(groups_in(tmp_path / "runs"), tmp_path / "report.csv")

    rows = {row["quantity"]: row for row in csv.DictReader((tmp_path / "report.csv").read_text().splitlines())}
    assert rows["test/accuracy"] == {
        "backbone": "clip_vitb16", "dataset": "dtd", "evaluation": "in_domain", "method": "kra", "shots": "16",
        "quantity": "test/accuracy", "mean": "0.625", "std": "0.1767766952966369", "n": "2",
        "published": "", "gap": "", "oracle": "", "median": "0.625", "name": "KRAdapter",
    }  # fmt: skip
    assert set(rows) == {
        "test/accuracy", "test/ece", "trainable_parameters", "effective_rank",
        "train_seconds", "evaluation_seconds", "peak_memory_bytes",
    }  # fmt: skip
